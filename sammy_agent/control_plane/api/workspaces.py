# SPDX-License-Identifier: Apache-2.0
"""What workspaces call, and the boot log of nodes: rows are kept once by their id, whatever is sent again."""

from __future__ import annotations

import secrets
import time

from sammy_agent.base.wire.claims import NODE_SCOPE, REFRESHED_TOKEN, WORKSPACE_SCOPE
from sammy_agent.base.wire.limits import MAX_MESSAGES_PER_SESSION
from sammy_agent.base.wire.statuses import SESSION_FULL
from sammy_agent.control_plane import workspace_schema
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.storage.workspaces import SessionMismatch, WorkspaceStore
from sammy_agent.control_plane.token_signer import Claims, TokenRefused

MOST_SHOWN = 1000


class WorkspaceTokenHandler(ApiHandler):
    """An endpoint that takes a workspace's token."""

    @property
    def rows(self) -> WorkspaceStore:
        """The tables of workspaces."""
        return WorkspaceStore(self.context.store)

    def workspace_claims(self, workspace: str) -> Claims:
        """Return the claims of a token that may speak for this workspace. TokenRefused otherwise."""
        claims = self.context.signer.verify(self.bearer())
        if claims.scope == NODE_SCOPE:
            raise TokenRefused(403, "Insufficient token scope")
        if claims.subject != workspace:
            raise TokenRefused(403, "Callback token does not match workspace")
        return claims

    def renewed(self, claims: Claims, workspace: str) -> dict[str, str]:
        """Return a new token for one past half of its life: SAM never renews these, and a workspace falls silent."""
        if not claims.wants_refresh(time.time()):
            return {}
        return {
            REFRESHED_TOKEN: self.context.signer.callback_token(self.context.issuer, workspace, scope=WORKSPACE_SCOPE)
        }


class MessagesHandler(WorkspaceTokenHandler):
    """POST and, for the operator, GET /api/workspaces/{w}/messages."""

    def post(self, workspace: str) -> None:
        """Keep what was said."""
        entries = workspace_schema.parse_messages(self.request.body)
        claims = self.workspace_claims(workspace)
        if self.rows.workspace(workspace) is None:
            return self.write_error_json(404, "Workspace not found")
        try:
            kept = self.rows.insert_messages(workspace, entries)
        except SessionMismatch as mismatch:
            return self.write_error_json(400, mismatch.problem.text)
        counts = {"persisted": kept.persisted, "duplicates": kept.duplicates}
        if kept.remaining is not None:
            full = {"error": SESSION_FULL, "message": "The session takes no more messages"}
            room = {"maxMessages": MAX_MESSAGES_PER_SESSION, "remainingCapacity": kept.remaining}
            return self.write_json({**full, **counts, **room}, 409)
        return self.write_json({**counts, **self.renewed(claims, workspace)})

    def get(self, workspace: str) -> None:
        """Show what was said, a page at a time: `after` is the last row seen."""
        self.require_operator()
        try:
            after, limit = (int(self.get_query_argument(*each) or "") for each in (("after", "0"), ("limit", "100")))
        except ValueError:
            return self.write_error_json(400, "after and limit must be whole numbers")
        found = self.rows.messages(workspace, max(1, min(limit, MOST_SHOWN)), after)
        return self.write_json({"messages": found})


class WorkspaceBootLogHandler(WorkspaceTokenHandler):
    """POST /api/workspaces/{w}/boot-log."""

    def post(self, workspace: str) -> None:
        """Keep one entry; the wire's entries have no id, so one that comes again stands there twice, as at SAM."""
        entry = workspace_schema.parse_boot_log_entry(self.request.body)
        claims = self.workspace_claims(workspace)
        row = self.rows.workspace(workspace)
        if row is None:
            return self.write_error_json(404, "Workspace not found")
        self.rows.insert_boot_log(row["node_id"], workspace, [{"id": secrets.token_hex(8), **entry}])
        return self.write_json({"success": True, **self.renewed(claims, workspace)})


class NodeBootLogHandler(WorkspaceTokenHandler):
    """POST /api/nodes/{n}/boot-log, which SAM does not have: the boot steps as they happen."""

    def post(self, node: str) -> None:
        """Keep entries, each once."""
        entries = workspace_schema.parse_boot_log_entries(self.request.body)
        self.node_claims(node)
        if self.context.store.node(node) is None:
            return self.write_error_json(404, "Node not found")
        kept = self.rows.insert_boot_log(node, None, entries)
        return self.write_json({"success": True, "persisted": kept.persisted, "duplicates": kept.duplicates})

    def get(self, node: str) -> None:
        """Show the operator the newest entries."""
        self.require_operator()
        return self.write_json({"entries": self.rows.log(node, None, MOST_SHOWN)})


class WorkspacesHandler(WorkspaceTokenHandler):
    """GET /api/workspaces and /api/workspaces/{w}, for the operator."""

    def get(self, workspace: str | None = None) -> None:
        """Show all workspaces or one."""
        self.require_operator()
        found = [workspace_schema.to_json(row) for row in self.rows.workspaces() if workspace in (None, row["id"])]
        if workspace is None:
            return self.write_json({"workspaces": found})
        if not found:
            return self.write_error_json(404, "Workspace not found")
        return self.write_json({**found[0], "bootLog": self.rows.log(found[0]["nodeId"], workspace)})
