# SPDX-License-Identifier: Apache-2.0
"""What nodes tell of their ACP sessions: the newest state of each, and that the node still works on them."""

from __future__ import annotations

import time
from typing import Any

from sammy_agent.base.wire.claims import NODE_SCOPE
from sammy_agent.base.wire.limits import MAX_ACTIVITY_BYTES
from sammy_agent.base.wire.statuses import ACTIVITIES
from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.storage.sessions import SessionStore
from sammy_agent.control_plane.token_signer import TokenRefused


class SessionReportHandler(ApiHandler):
    """A report that must carry the token of the node that its body names."""

    def report(self) -> dict[str, Any]:
        """Return the body and check whose token it came with. InvalidBody, TokenRefused."""
        if len(self.request.body) > MAX_ACTIVITY_BYTES:
            raise node_schema.InvalidBody(f"The body is over {MAX_ACTIVITY_BYTES} bytes")
        document = node_schema.parse_json(self.request.body)
        if not isinstance(document.get("nodeId"), str) or not document["nodeId"]:
            raise node_schema.InvalidBody("nodeId is required")
        claims = self.context.signer.verify(self.bearer())
        if claims.scope != NODE_SCOPE or claims.subject != document["nodeId"]:
            raise TokenRefused(403, "Callback token does not match node")
        return document


class NodeAcpHeartbeatHandler(SessionReportHandler):
    """POST /api/projects/{p}/node-acp-heartbeat."""

    def post(self, project: str) -> None:
        """Keep the node's sessions of the project from being taken for interrupted."""
        document = self.report()
        SessionStore(self.context.store).record_alive(project, document["nodeId"])
        return self.set_status(204)


class SessionActivityHandler(SessionReportHandler):
    """POST /api/projects/{p}/acp-sessions/{s}/activity."""

    def post(self, project: str, session: str) -> None:
        """Keep the newest state. SAM creates a session before its agent starts; here the first report does."""
        document = self.report()
        if document.get("activity") not in ACTIVITIES:
            raise node_schema.InvalidBody(f"activity must be one of {', '.join(ACTIVITIES)}")
        if not SessionStore(self.context.store).save_state(project, session, document["nodeId"], document):
            return self.write_error_json(403, "The session is another node's")
        return self.set_status(204)


class SessionsHandler(ApiHandler):
    """GET /api/projects/{p}/acp-sessions, for the operator."""

    def get(self, project: str) -> None:
        """Show a project's sessions."""
        self.require_operator()
        return self.write_json({"sessions": SessionStore(self.context.store).of_project(project, time.time())})
