# SPDX-License-Identifier: Apache-2.0
"""Workspaces' messages, and the boot logs: a repeated row has no effect, and the sender gets the counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.wire.limits import MAX_KEPT_BOOT_LOG_ENTRIES, MAX_MESSAGES_PER_SESSION
from sammy_agent.control_plane.storage.database import Store

MAX_NODE_LOG_ENTRIES = 2_000  # of a node's: about a hundred boots


@dataclass(frozen=True)
class BatchResult:
    """How many rows of a batch were stored."""

    persisted: int
    duplicates: int
    remaining: int | None = None  # set when the session was too full: the rows that it would still have taken


class SessionMismatch(ControlPlaneError):
    """The workspace is linked to another session."""

    code = Code.SESSION_MISMATCH


class WorkspaceStore:
    """The tables of workspaces in the control plane's file; for one thread, like the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, workspace: str, node: str) -> bool:
        """Add a workspace of a node; return False when it is known as another node's."""
        with self._store.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO workspaces (id, node_id, created_at) VALUES (?, ?, ?)",
                (workspace, node, time.time()),
            )
            return bool(db.execute("SELECT node_id=? FROM workspaces WHERE id=?", (node, workspace)).fetchone()[0])

    def workspace(self, workspace: str) -> dict[str, Any] | None:
        """Return a workspace's row, None when there is none."""
        rows = self._rows("SELECT * FROM workspaces WHERE id=?", workspace)
        return rows[0] if rows else None

    def workspaces(self) -> list[dict[str, Any]]:
        """Return all workspaces with the number of their messages, oldest first."""
        return self._rows(
            "SELECT *, (SELECT COUNT(*) FROM messages WHERE workspace_id=workspaces.id) AS messages FROM workspaces "
            "ORDER BY created_at, id"
        )

    def insert_messages(
        self, workspace: str, entries: Sequence[Mapping[str, Any]], most: int = MAX_MESSAGES_PER_SESSION
    ) -> BatchResult:
        """Store a batch of one session: all of it, or nothing where the session is too full.

        The first session that sends is linked to the workspace.

        :raises SessionMismatch: the workspace is linked to another one.
        """
        session, now = entries[0]["sessionId"], time.time()
        with self._store.transaction() as db:
            db.execute("UPDATE workspaces SET session_id=? WHERE id=? AND session_id IS NULL", (session, workspace))
            (linked,) = db.execute("SELECT session_id FROM workspaces WHERE id=?", (workspace,)).fetchone()
            if linked != session:
                raise SessionMismatch("The workspace is linked to another session")
            new = self._new(db, workspace, entries)
            (held,) = db.execute("SELECT COUNT(*) FROM messages WHERE workspace_id=?", (workspace,)).fetchone()
            if held + len(new) > most:
                return BatchResult(0, len(entries) - len(new), most - held)
            db.executemany(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (workspace, entry["messageId"], session, entry["role"], entry["content"],
                     entry.get("toolMetadata"), entry.get("origin"), entry["timestamp"], entry.get("sequence"), now)
                    for entry in new
                ],
            )  # fmt: skip
        return BatchResult(len(new), len(entries) - len(new))

    def _new(
        self, db: sqlite3.Connection, workspace: str, entries: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """Return the entries whose ids are not known, each id once."""
        by_id = {entry["messageId"]: entry for entry in reversed(entries)}
        marks = ", ".join("?" * len(by_id))
        known = db.execute(
            f"SELECT message_id FROM messages WHERE workspace_id=? AND message_id IN ({marks})", (workspace, *by_id)
        )
        for row in known.fetchall():
            del by_id[row[0]]
        return [entry for entry in entries if by_id.get(entry["messageId"]) is entry]

    def messages(self, workspace: str, limit: int, after: int = 0) -> list[dict[str, Any]]:
        """Return messages in the order they came, after the row `after`."""
        return self._rows(
            "SELECT rowid AS row, message_id AS messageId, session_id AS sessionId, role, content, "
            "tool_metadata AS toolMetadata, origin, timestamp, sequence FROM messages "
            "WHERE workspace_id=? AND rowid>? ORDER BY rowid LIMIT ?",
            workspace, after, limit,
        )  # fmt: skip

    def insert_boot_log(self, node: str, workspace: str | None, entries: Sequence[Mapping[str, Any]]) -> BatchResult:
        """Store boot log entries, each id once; the oldest beyond the bound are deleted."""
        now, persisted = time.time(), 0
        with self._store.transaction() as db:
            for entry in entries:
                done = db.execute(
                    "INSERT OR IGNORE INTO boot_log (node_id, workspace_id, entry_id, step, status, message, detail, "
                    "timestamp, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (node, workspace, entry["id"], entry["step"], entry["status"], entry.get("message", ""),
                     entry.get("detail"), entry["timestamp"], now),
                )  # fmt: skip
                persisted += done.rowcount
            most = MAX_NODE_LOG_ENTRIES if workspace is None else MAX_KEPT_BOOT_LOG_ENTRIES
            db.execute(
                "DELETE FROM boot_log WHERE node_id=? AND workspace_id IS ? AND seq NOT IN (SELECT seq FROM boot_log "
                "WHERE node_id=? AND workspace_id IS ? ORDER BY seq DESC LIMIT ?)",
                (node, workspace, node, workspace, most),
            )
        return BatchResult(persisted, len(entries) - persisted)

    def log(self, node: str, workspace: str | None, limit: int = MAX_KEPT_BOOT_LOG_ENTRIES) -> list[dict[str, Any]]:
        """Return the newest entries of a boot log, oldest first."""
        rows = self._rows(
            "SELECT entry_id AS id, step, status, message, detail, timestamp FROM boot_log "
            "WHERE node_id=? AND workspace_id IS ? ORDER BY seq DESC LIMIT ?",
            node, workspace, limit,
        )  # fmt: skip
        return rows[::-1]

    def _rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with self._store.read() as db:
            return [dict(row) for row in db.execute(statement, values)]
