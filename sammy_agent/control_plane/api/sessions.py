# SPDX-License-Identifier: Apache-2.0
"""What nodes tell of their ACP sessions: the newest state of each, and that the node still works on them."""

from __future__ import annotations

import time
from typing import Any

from sammy_agent.base.wire.claims import NODE_SCOPE
from sammy_agent.base.wire.limits import MAX_ACTIVITY_BYTES
from sammy_agent.base.wire.statuses import ACTIVITIES
from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.api.base_handler import Handler
from sammy_agent.control_plane.storage.sessions import SessionStore
from sammy_agent.control_plane.tokens import TokenRefused


class SessionHandler(Handler):
    """A door that the token of the node opens which the body names."""

    def report(self) -> dict[str, Any]:
        """Return the body and check whose token it came with. BodyRefused, TokenRefused."""
        if len(self.request.body) > MAX_ACTIVITY_BYTES:
            raise node_schema.BodyRefused(f"The body is over {MAX_ACTIVITY_BYTES} bytes")
        document = node_schema.parse_json(self.request.body)
        if not isinstance(document.get("nodeId"), str) or not document["nodeId"]:
            raise node_schema.BodyRefused("nodeId is required")
        claims = self.parts.signer.verify(self.bearer())
        if claims.scope != NODE_SCOPE or claims.subject != document["nodeId"]:
            raise TokenRefused(403, "Callback token does not match node")
        return document


class NodeAlive(SessionHandler):
    """POST /api/projects/{p}/node-acp-heartbeat."""

    def post(self, project: str) -> None:
        """Keep the node's sessions of the project from being taken for interrupted."""
        document = self.report()
        SessionStore(self.parts.store).alive(project, document["nodeId"])
        return self.set_status(204)


class SessionActivity(SessionHandler):
    """POST /api/projects/{p}/acp-sessions/{s}/activity."""

    def post(self, project: str, session: str) -> None:
        """Keep the newest state. Sessions are made by whoever starts agents; here the first report makes one known."""
        document = self.report()
        if document.get("activity") not in ACTIVITIES:
            raise node_schema.BodyRefused(f"activity must be one of {', '.join(ACTIVITIES)}")
        if not SessionStore(self.parts.store).keep(project, session, document["nodeId"], document):
            return self.write_error_json(403, "The session is another node's")
        return self.set_status(204)


class Sessions(Handler):
    """GET /api/projects/{p}/acp-sessions, for the operator."""

    def get(self, project: str) -> None:
        """Show a project's sessions."""
        self.operator_only()
        return self.write_json({"sessions": SessionStore(self.parts.store).of_project(project, time.time())})
