# SPDX-License-Identifier: Apache-2.0
"""What a node calls: sign of life, ready, errors, a certificate for its key."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from sammy_agent.base.wire.claims import REFRESHED_TOKEN
from sammy_agent.base.wire.statuses import HEALTHY, NODE_RUNNING
from sammy_agent.base.wire.timestamps import iso
from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.certificate_authority import CsrRefused

LOG = logging.getLogger(__name__)


class HeartbeatHandler(ApiHandler):
    """POST /api/nodes/{n}/heartbeat."""

    def post(self, node: str) -> None:
        """Take a sign of life; renew the token when half of its life is over."""
        values = node_schema.parse_heartbeat(node_schema.parse_json(self.request.body)) if self.is_json() else {}
        claims = self.node_claims(node)
        row = self.context.store.node(node)
        if row is None:
            return self.write_error_json(404, "Node not found")
        now = time.time()
        if "provisioning" in values and row["provisioning"]:
            known = json.loads(row["provisioning"])
            if known.get("runId") == values["provisioning"].get("runId"):
                # steps are sent only when they changed
                values["provisioning"] = {**known, **values["provisioning"]}
        if claims.is_boot and row["boot_token_used_at"] is None:
            values["boot_token_used_at"] = now
        self.context.store.update_node(node, {**values, "last_heartbeat_at": now, "ip_address": self.request.remote_ip})
        document = {"status": row["status"], "lastHeartbeatAt": iso(now), "healthStatus": HEALTHY}
        if claims.wants_refresh(now):
            document[REFRESHED_TOKEN] = self.context.signer.callback_token(self.context.issuer, node)
        return self.write_json(document)


class ReadyHandler(ApiHandler):
    """POST /api/nodes/{n}/ready: makes the node running."""

    def post(self, node: str) -> None:
        """Make the node running and healthy; an unknown node is answered 200 all the same, as the wire does."""
        version = None
        if self.request.body and self.is_json():
            version = node_schema.parse_heartbeat(node_schema.parse_json(self.request.body)).get("agent_version")
        self.node_claims(node)
        now = time.time()
        values: dict[str, Any] = {"status": NODE_RUNNING, "ready_at": now, "last_heartbeat_at": now}
        if version:
            values["agent_version"] = version
        self.context.store.update_node(node, values)
        return self.write_json({"status": NODE_RUNNING, "readyAt": iso(now)})


class ErrorsHandler(ApiHandler):
    """POST /api/nodes/{n}/errors."""

    def post(self, node: str) -> None:
        """Keep incidents, each once."""
        entries = node_schema.parse_errors(self.request.body)
        self.node_claims(node, scope_required=True)
        for entry in entries:
            if self.context.store.add_incident(node, entry):
                level = logging.WARNING if entry["level"] == "error" else logging.INFO
                LOG.log(level, "node %s: %s", node, entry["message"])
        self.set_status(204)


class CertificateHandler(ApiHandler):
    """POST /api/nodes/{n}/origin-ca-certificate: a node's CSR, signed once."""

    def post(self, node: str) -> None:
        """Sign the request of the first key a node shows; the same key again gets a new certificate, another none."""
        self.node_claims(node)
        row = self.context.store.node(node)
        if row is None:
            return self.write_error_json(404, "Node not found")
        text = self.request.body.decode("ascii", errors="replace")
        try:
            certificate, digest = self.context.authority.sign_node(text, node, self.request.remote_ip or "")
        except CsrRefused as refused:
            return self.write_error_json(400, refused.problem.text)
        if row["key_digest"] not in (None, digest):
            return self.write_error_json(
                409, "A certificate was signed for another key of this node; add the node again with --replace"
            )
        self.context.store.update_node(node, {"key_digest": digest})
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(certificate)
        return None
