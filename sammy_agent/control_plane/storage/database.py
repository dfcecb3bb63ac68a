# SPDX-License-Identifier: Apache-2.0
"""The control plane's SQLite file: nodes, and what they reported.

The server and the commands (`nodes`, `add-node`) open it at the same time. Times are seconds since the epoch; what the
wire shows is made in `node_schema`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from sammy_agent.base.errors import ControlPlaneError, StoreUnusable
from sammy_agent.base.storage.sqlite import Database

FILE = "control-plane.db"
# The n-th brings the schema from version n to n + 1; one that was released is never changed.
MIGRATIONS = (
    (
        """CREATE TABLE nodes (
            id TEXT PRIMARY KEY,
            status TEXT NOT NULL DEFAULT 'creating',
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            stale_after_s INTEGER NOT NULL DEFAULT 180,
            last_heartbeat_at REAL,
            ready_at REAL,
            agent_version TEXT,
            ip_address TEXT,
            metrics TEXT,
            provisioning TEXT,
            boot_token_id TEXT,
            boot_token_used_at REAL,
            key_digest TEXT
        )""",
        """CREATE TABLE incidents (
            node_id TEXT NOT NULL,
            incident_id TEXT NOT NULL,
            received_at REAL NOT NULL,
            level TEXT NOT NULL,
            message TEXT NOT NULL,
            source TEXT NOT NULL,
            entry TEXT NOT NULL,
            PRIMARY KEY (node_id, incident_id)
        )""",
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
    (
        # where the node's own server listens
        "ALTER TABLE nodes ADD COLUMN agent_port INTEGER",
        """CREATE TABLE workspaces (
            id TEXT PRIMARY KEY, node_id TEXT NOT NULL, session_id TEXT, created_at REAL NOT NULL)""",
        # SAM's rows; message_id is what makes a message the same when it comes again
        """CREATE TABLE messages (
            workspace_id TEXT NOT NULL, message_id TEXT NOT NULL, session_id TEXT NOT NULL, role TEXT NOT NULL,
            content TEXT NOT NULL, tool_metadata TEXT, origin TEXT, timestamp TEXT NOT NULL, sequence INTEGER,
            received_at REAL NOT NULL, PRIMARY KEY (workspace_id, message_id))""",
        """CREATE TABLE boot_log (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL, workspace_id TEXT, entry_id TEXT NOT NULL,
            step TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL, detail TEXT, timestamp TEXT NOT NULL,
            received_at REAL NOT NULL, UNIQUE (node_id, entry_id))""",
        """CREATE TABLE acp_sessions (
            project_id TEXT NOT NULL, id TEXT NOT NULL, node_id TEXT NOT NULL, activity TEXT NOT NULL,
            report TEXT NOT NULL, reported_at REAL NOT NULL, alive_at REAL NOT NULL, PRIMARY KEY (project_id, id))""",
        # debug packages that nodes pushed; the content is a file beside the store
        """CREATE TABLE artifacts (
            node_id TEXT NOT NULL, incident_id TEXT NOT NULL, artifact_id TEXT NOT NULL, status TEXT NOT NULL,
            declared TEXT NOT NULL, received_at REAL NOT NULL, PRIMARY KEY (node_id, incident_id, artifact_id))""",
    ),
    (
        # our address as the node has it, the issuer of what we show it; and whether its own server can be reached
        "ALTER TABLE nodes ADD COLUMN url TEXT",
        "ALTER TABLE nodes ADD COLUMN reachable INTEGER",
        "ALTER TABLE nodes ADD COLUMN reachable_at REAL",
        "ALTER TABLE nodes ADD COLUMN unreachable_why TEXT",
    ),
)


class Store:
    """The file. Only the server creates it; a command opens the existing one.

    A corrupt one stays where it is: it holds which nodes there are, and no program can reproduce that.
    """

    def __init__(self, folder: str, *, create: bool = False) -> None:
        path = os.path.join(folder, FILE)
        if not create and not os.path.exists(path):
            raise StoreUnusable(f"{path}: no control plane has run there yet", "Start one: sammy-agent control-plane")
        self._database = Database(path, MIGRATIONS, quarantine=False, row_factory=sqlite3.Row)
        try:
            with self.transaction():
                pass  # it can be written, and is of this version
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusable(f"{path}: {error}", "Is the disk full or the file damaged?") from error

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a context with a connection whose changes are committed with the block. sqlite3.Error."""
        return self._database.transaction()

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a context with a connection that sees one snapshot and waits for no writer. sqlite3.Error."""
        return self._database.read()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get_setting(self, name: str) -> str | None:
        """Return a setting, None when it was never set."""
        with self.read() as db:
            row = db.execute("SELECT value FROM settings WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def set_setting(self, name: str, value: str) -> None:
        """Store a setting for the commands, for example the server's address."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def nodes(self) -> list[dict[str, Any]]:
        """Return all nodes, oldest first."""
        with self.read() as db:
            return [dict(row) for row in db.execute("SELECT * FROM nodes ORDER BY created_at, id")]

    def node(self, node: str) -> dict[str, Any] | None:
        """Return one node's row, None when there is none."""
        with self.read() as db:
            row = db.execute("SELECT * FROM nodes WHERE id=?", (node,)).fetchone()
        return None if row is None else dict(row)

    def require_node(self, node: str) -> dict[str, Any]:
        """Return the row of a node that the operator named. ControlPlaneError when there is none."""
        row = self.node(node)
        if row is None:
            raise ControlPlaneError(f"there is no node {node}", "See `sammy-agent control-plane nodes`")
        return row

    def add_node(self, node: str, boot_token_id: str, url: str | None = None) -> None:
        """Add a node, or reset a known one: creating, another boot token, no certificate, no history.

        :param url: the control plane's address as this node has it.
        """
        now = time.time()
        with self.transaction() as db:
            _delete_node(db, node)
            db.execute(
                "INSERT INTO nodes (id, created_at, updated_at, boot_token_id, url) VALUES (?, ?, ?, ?, ?)",
                (node, now, now, boot_token_id, url),
            )

    def remove_node(self, node: str) -> bool:
        """Delete a node and all that it reported; return whether there was one."""
        with self.transaction() as db:
            return _delete_node(db, node)

    def update_node(self, node: str, values: Mapping[str, Any]) -> bool:
        """Set columns of a node; return whether there is one. Mappings are stored as JSON."""
        columns = {**values, "updated_at": time.time()}
        plain = [json.dumps(value) if isinstance(value, dict) else value for value in columns.values()]
        assigned = ", ".join(f"{name}=?" for name in columns)  # names are ours, never the wire's
        with self.transaction() as db:
            return db.execute(f"UPDATE nodes SET {assigned} WHERE id=?", (*plain, node)).rowcount == 1

    def add_incident(self, node: str, entry: Mapping[str, Any]) -> bool:
        """Store an incident; return False when it is known already."""
        row = (
            node,
            entry["incidentId"],
            time.time(),
            entry["level"],
            entry["message"],
            entry["source"],
            json.dumps(dict(entry)),
        )
        with self.transaction() as db:
            return db.execute("INSERT OR IGNORE INTO incidents VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount == 1

    def incidents(self, node: str, limit: int = 100) -> list[dict[str, Any]]:
        """Return a node's incidents, newest first."""
        with self.read() as db:
            rows = db.execute(
                "SELECT received_at, entry FROM incidents WHERE node_id=? "
                "ORDER BY received_at DESC, rowid DESC LIMIT ?",
                (node, limit),
            ).fetchall()
        return [{**json.loads(row["entry"]), "receivedAt": row["received_at"]} for row in rows]


def _delete_node(db: sqlite3.Connection, node: str) -> bool:
    """Delete a node with its records and its workspaces'; return whether there was one."""
    db.execute("DELETE FROM messages WHERE workspace_id IN (SELECT id FROM workspaces WHERE node_id=?)", (node,))
    for table in ("incidents", "workspaces", "boot_log", "acp_sessions", "artifacts"):
        db.execute(f"DELETE FROM {table} WHERE node_id=?", (node,))
    return db.execute("DELETE FROM nodes WHERE id=?", (node,)).rowcount == 1
