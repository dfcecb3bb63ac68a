# SPDX-License-Identifier: Apache-2.0
"""What a node calls to leave the evidence of an incident: its debug package, declared and then sent."""

from __future__ import annotations

import logging

from sammy_agent.base.wire.claims import CHECKSUM_HEADER
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.storage.artifacts import Artifacts, ConflictingContent, parse_declaration

LOG = logging.getLogger(__name__)


class ArtifactHandler(ApiHandler):
    """POST …/artifacts, then PUT …/artifacts/{artifactId}/content."""

    @property
    def _artifacts(self) -> Artifacts:
        return Artifacts(self.context.store, self.context.folder)

    def post(self, node: str, incident: str, artifact: str | None = None) -> None:
        """Take what is declared; the same again is answered the same."""
        document = parse_declaration(self.request.body, incident)
        self.node_claims(node, scope_required=True)
        if artifact is not None or self.context.store.node(node) is None:
            return self.write_error_json(404, "Node not found")
        try:
            status = self._artifacts.declare(node, incident, document)
        except ConflictingContent as conflict:
            return self.write_error_json(409, conflict.problem.text)
        return self.write_json({"artifactId": document["artifactId"], "status": status}, 201)

    def put(self, node: str, incident: str, artifact: str | None = None) -> None:
        """Keep the content, if it is what was declared."""
        self.node_claims(node, scope_required=True)
        checksum = self.request.headers.get(CHECKSUM_HEADER, "").lower()
        try:
            kept = artifact is not None and self._artifacts.store_content(
                node, incident, artifact, self.request.body, checksum
            )
        except ConflictingContent as conflict:
            return self.write_error_json(409, conflict.problem.text)
        if not kept:
            return self.write_error_json(404, "Artifact not found")
        LOG.warning("node %s left a debug package of %d bytes, incident %s", node, len(self.request.body), incident)
        self.set_status(204)
        return None
