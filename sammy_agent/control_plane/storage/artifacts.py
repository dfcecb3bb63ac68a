# SPDX-License-Identifier: Apache-2.0
"""Debug packages that nodes push: declared first, then uploaded, each a file of its own next to the store.

Bounded per node, the oldest removed first: a node that fails over and over must not fill the operator's disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from typing import Any

from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.wire.ids import is_id, is_sha256, is_ulid
from sammy_agent.base.wire.limits import MAX_ARTIFACT_BYTES, MAX_ARTIFACT_DECLARATION_BYTES
from sammy_agent.base.wire.statuses import ARTIFACT_FAILED, ARTIFACT_KIND, ARTIFACT_READY
from sammy_agent.base.wire.timestamps import iso
from sammy_agent.control_plane.node_schema import InvalidBody, parse_json
from sammy_agent.control_plane.storage.database import Store

MAX_ARTIFACTS = 10  # per node


class ConflictingContent(ControlPlaneError):
    """Different content under an id that has its content already; answered 409."""

    code = Code.CONTENT_CONFLICT


def parse_declaration(raw: bytes, incident: str) -> dict[str, Any]:
    """Return the declaration in a body. InvalidBody says which rule it breaks."""
    if len(raw) > MAX_ARTIFACT_DECLARATION_BYTES:
        raise InvalidBody(f"The body is over {MAX_ARTIFACT_DECLARATION_BYTES} bytes")
    document = parse_json(raw)
    if not is_ulid(incident):
        raise InvalidBody("incidentId must be a ULID")
    for name, form in (("artifactId", is_id), ("checksumSha256", is_sha256)):
        if not form(document.get(name)):
            raise InvalidBody(f"{name} is missing or malformed")
    size = document.get("sizeBytes")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= MAX_ARTIFACT_BYTES:
        raise InvalidBody(f"sizeBytes must be 1 to {MAX_ARTIFACT_BYTES}")
    if document.get("kind") != ARTIFACT_KIND:
        raise InvalidBody(f"kind must be {ARTIFACT_KIND}")
    if document.get("status") not in (ARTIFACT_READY, ARTIFACT_FAILED):
        raise InvalidBody("status must be ready or failed")
    return document


class Artifacts:
    """The stored packages, and what was declared of them. For one thread, like the store."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, os.path.join(folder, "artifacts")

    def declare(self, node: str, incident: str, document: dict[str, Any]) -> str:
        """Store what a node is about to send; return its status, pending or ready.

        :raises ConflictingContent: different content was received already.
        """
        artifact = document["artifactId"]
        known = self._row(node, incident, artifact)
        if known is not None and known["status"] == "ready":
            if _same(json.loads(known["declared"]), document):
                return "ready"
            raise ConflictingContent("Another content was received for this artifact")
        with self._store.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, 'pending', ?, ?)",
                (node, incident, artifact, json.dumps(document), time.time()),
            )
        self._prune(node)
        return "pending"

    def store_content(self, node: str, incident: str, artifact: str, content: bytes, checksum: str) -> bool:
        """Store the content; return False when it was never declared.

        :raises InvalidBody: it is not what was declared.
        :raises ConflictingContent: different content was received already.
        """
        row = self._row(node, incident, artifact)
        if row is None:
            return False
        known = json.loads(row["declared"])
        if row["status"] == "ready":
            if checksum == known["checksumSha256"]:
                return True
            raise ConflictingContent("Another content was received for this artifact")
        digest = hashlib.sha256(content).hexdigest()
        if len(content) != known["sizeBytes"]:
            raise InvalidBody(f"The content has {len(content)} bytes, declared were {known['sizeBytes']}")
        if not digest == checksum == known["checksumSha256"]:
            raise InvalidBody("Checksum mismatch")
        path = self._path(node, incident, artifact)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.write(path, content, mode=files.PRIVATE)
        with self._store.transaction() as db:
            db.execute(
                "UPDATE artifacts SET status='ready', received_at=? "
                "WHERE node_id=? AND incident_id=? AND artifact_id=?",
                (time.time(), node, incident, artifact),
            )
        return True

    def listed(self, node: str) -> list[dict[str, Any]]:
        """Return what a node sent, newest first, as the operator sees it."""
        with self._store.read() as db:
            rows = db.execute("SELECT * FROM artifacts WHERE node_id=? ORDER BY received_at DESC", (node,)).fetchall()
        return [self._view(row) for row in rows]

    def read(self, node: str, incident: str, artifact: str) -> bytes:
        """Return the content of one that is ready. OSError."""
        with open(self._path(node, incident, artifact), "rb") as file:
            return file.read()

    def _view(self, row: Any) -> dict[str, Any]:
        told = json.loads(row["declared"])
        return {
            "incidentId": row["incident_id"],
            "artifactId": row["artifact_id"],
            "status": row["status"],
            "sizeBytes": told["sizeBytes"],
            "checksumSha256": told["checksumSha256"],
            "contentType": str(told.get("contentType", "")),
            "preview": told.get("preview"),
            "receivedAt": iso(row["received_at"]),
        }

    def _row(self, node: str, incident: str, artifact: str) -> Any:
        with self._store.read() as db:
            return db.execute(
                "SELECT status, declared FROM artifacts WHERE node_id=? AND incident_id=? AND artifact_id=?",
                (node, incident, artifact),
            ).fetchone()

    def _path(self, node: str, incident: str, artifact: str) -> str:
        # both ids are of letters, digits and . _ - and begin with none of those signs: no way out of the folder
        return os.path.join(self._folder, node, f"{incident}-{artifact}")

    def _prune(self, node: str) -> None:
        """Delete the oldest beyond the bound, and files without a row: their node was reset."""
        with self._store.transaction() as db:
            db.execute(
                "DELETE FROM artifacts WHERE node_id=? AND rowid NOT IN "
                "(SELECT rowid FROM artifacts WHERE node_id=? ORDER BY received_at DESC LIMIT ?)",
                (node, node, MAX_ARTIFACTS),
            )
            rows = db.execute("SELECT node_id, incident_id, artifact_id FROM artifacts").fetchall()
        known = {os.path.relpath(self._path(*row), self._folder) for row in rows}
        with contextlib.suppress(FileNotFoundError):
            for other in os.listdir(self._folder):
                if not any(path.startswith(f"{other}/") for path in known):
                    shutil.rmtree(os.path.join(self._folder, other), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(self._folder, node)):
                if f"{node}/{name}" not in known:
                    files.remove(os.path.join(self._folder, node, name))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("checksumSha256", "sizeBytes"))
