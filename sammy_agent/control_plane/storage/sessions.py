# SPDX-License-Identifier: Apache-2.0
"""ACP sessions on the control plane: the newest state of each, and when its node last worked on it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sammy_agent.base.wire.limits import SESSION_INTERRUPTED_SECONDS
from sammy_agent.base.wire.statuses import INTERRUPTED
from sammy_agent.base.wire.timestamps import iso
from sammy_agent.control_plane.storage.database import Store


class SessionStore:
    """The table of ACP sessions in the control plane's file; for one thread, like the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save_state(self, project: str, session: str, node: str, report: Mapping[str, Any]) -> bool:
        """Store a session's newest state; return False when it is another node's."""
        now = time.time()
        with self._store.transaction() as db:
            known = db.execute("SELECT node_id FROM acp_sessions WHERE project_id=? AND id=?", (project, session))
            row = known.fetchone()
            if row is not None and row[0] != node:
                return False
            db.execute(
                "INSERT OR REPLACE INTO acp_sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (project, session, node, report["activity"], json.dumps(dict(report)), now, now),
            )
        return True

    def record_alive(self, project: str, node: str) -> None:
        """Record that a node still works on its sessions of a project."""
        with self._store.transaction() as db:
            db.execute(
                "UPDATE acp_sessions SET alive_at=? WHERE project_id=? AND node_id=?", (time.time(), project, node)
            )

    def of_project(self, project: str, now: float) -> list[dict[str, Any]]:
        """Return a project's sessions; one without a sign of life is `interrupted`."""
        with self._store.read() as db:
            rows = db.execute("SELECT * FROM acp_sessions WHERE project_id=? ORDER BY id", (project,)).fetchall()
        return [
            {
                **json.loads(row["report"]),
                "id": row["id"],
                "nodeId": row["node_id"],
                "activity": INTERRUPTED if now - row["alive_at"] > SESSION_INTERRUPTED_SECONDS else row["activity"],
                "reportedAt": iso(row["reported_at"]),
                "aliveAt": iso(row["alive_at"]),
            }
            for row in rows
        ]
