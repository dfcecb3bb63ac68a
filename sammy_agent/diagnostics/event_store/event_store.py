# SPDX-License-Identifier: Apache-2.0
"""The event store: what happened on this node, and its runs, in SQLite; one connection writes.

An event that may be recorded twice has a key (a step's is run, step, attempt and status, from records that are fed
again and again); the store gives every event its number, so no event is lost to a clash of ids made elsewhere, which
once left SAM a single row of its first boot. Order is `seq`, which never falls back, not even after a corrupt file.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from cc_sammy.contract.run_record import Outcome, RunRecord
from sammy_agent.base.events.event import NewEvent
from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.storage import retention
from sammy_agent.base.storage.retention import MIB, Retention
from sammy_agent.base.storage.sqlite import Database, seed_autoincrement_from_clock
from sammy_agent.diagnostics.event_store import event_query
from sammy_agent.diagnostics.event_store.event_query import NEWEST, EventQuery
from sammy_agent.diagnostics.event_store.from_run_record import events_from_run_record

MIGRATIONS = (
    (
        # `store` makes ids of two stores differ when the clock fell back between them
        "CREATE TABLE store (id INTEGER NOT NULL)",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, created_at INTEGER NOT NULL, boottime_us INTEGER NOT NULL,
            boot_id TEXT NOT NULL, level TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL,
            run_id TEXT NOT NULL, step TEXT NOT NULL, status TEXT NOT NULL, attempt INTEGER, duration_us INTEGER,
            detail TEXT, key TEXT UNIQUE)""",
        "CREATE INDEX events_by_type ON events (type, seq)",
        "CREATE INDEX events_by_run ON events (run_id, seq) WHERE run_id != ''",
        """CREATE TABLE runs (
            run_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, instance_id TEXT NOT NULL, wall_clock TEXT NOT NULL,
            outcome TEXT NOT NULL, reason TEXT NOT NULL, duration_ms REAL, document TEXT NOT NULL, reported_at TEXT)""",
    ),
)
# Runs whose record is kept whole; of older ones only the id is, so that a record that is fed again is recognised.
MAX_FULL_RUNS, MAX_KNOWN_RUNS = 1000, 20_000
KEPT = Retention(days=30, rows=100_000, bytes=64 * MIB)
# New rows after which the bounds are applied.
TRIM_AFTER_ROWS = 500


class EventStore:
    """One file, opened when first needed, so that a disk that is full at the start only delays it. Thread-safe.

    Reading waits for no writer. `boot_id` is the present boot's.
    """

    def __init__(self, path: str, keep: Retention = KEPT, boot_id: str = "", *, read_only: bool = False) -> None:
        self.path = path
        self._keep, self._boot_id = keep, boot_id
        self._database = Database(path, MIGRATIONS, shrinks=True, read_only=read_only)
        self._rows_since_trim = 0

    def __repr__(self) -> str:
        return f"<EventStore {self.path}>"

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def corruption(self) -> str:
        """What was found corrupt, and where it lies now."""
        return self._database.corruption

    @property
    def corruptions(self) -> int:
        """How often the file was recreated because it was corrupt; what was in it is to be fed again."""
        return self._database.corruptions

    @property
    def on_corruption(self) -> Signal[str]:
        """Emitted in the thread that met it; who is connected must not wait for the store."""
        return self._database.on_corruption

    def snapshot(self, path: str) -> None:
        """Write a consistent copy, by SQLite's backup, while others go on writing. sqlite3.Error."""
        self._database.snapshot(path)

    def add(self, events: Sequence[NewEvent]) -> int:
        """Keep events, all or none; return how many are new, one whose key is known is ignored. sqlite3.Error."""
        with self._database.transaction() as db:
            return self._insert(db, events)

    def add_run(self, record: RunRecord) -> bool:
        """Keep a run as it is now, with an event for each step that started or ended.

        :return: whether it was kept; a run that ended is not overwritten by an older record of it.
        :raises sqlite3.Error: the store cannot be written.
        """
        document = record.to_json()
        with self._database.transaction() as db:
            known = db.execute("SELECT outcome, document FROM runs WHERE run_id=?", (record.run_id,)).fetchone()
            if known is not None and known[0] != Outcome.RUNNING.value:
                if record.outcome is Outcome.RUNNING:
                    return False
                if known[1] in ("", document):
                    return True  # its events may be trimmed already; they do not come back as the newest
            db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (run_id) DO UPDATE SET "
                "outcome=excluded.outcome, reason=excluded.reason, duration_ms=excluded.duration_ms, "
                "document=excluded.document",
                (record.run_id, record.boot_id, record.instance_id, record.wall_clock, record.outcome.value,
                 record.reason, record.duration_ms, document),
            )  # fmt: skip
            self._insert(db, list(events_from_run_record(record)))
        return True

    def unreported_failures(self) -> list[RunRecord]:
        """Return failed runs that were not reported to the control plane yet, oldest first. sqlite3.Error."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT document FROM runs WHERE outcome=? AND reported_at IS NULL ORDER BY run_id",
                (Outcome.FAILED.value,),
            ).fetchall()
        return [RunRecord.from_json(row[0]) for row in rows]

    def mark_reported(self, run_id: str) -> None:
        """Mark a failed run as reported to the control plane. sqlite3.Error."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._database.transaction() as db:
            db.execute("UPDATE runs SET reported_at=? WHERE run_id=?", (now, run_id))

    def events(self, query: EventQuery = NEWEST) -> list[dict[str, Any]]:
        """Return events: their columns, `id` (16 hex digits), and `detail` as an object or None.

        :raises sqlite3.Error: the file cannot be read.
        :raises StoreUnusable: another version wrote it.
        :raises ValueError: there is no such level.
        """
        with self._database.read() as db:
            return event_query.select(db, query)

    def trim(self) -> int:
        """Apply the bounds now; return how many events were removed. sqlite3.Error."""
        with self._database.transaction() as db:
            return self._trim(db)

    def _insert(self, db: sqlite3.Connection, events: Sequence[NewEvent]) -> int:
        if db.execute("SELECT 1 FROM store").fetchone() is None:
            db.execute("INSERT INTO store VALUES (?)", (secrets.randbelow(1 << 12),))
            seed_autoincrement_from_clock(db, "events")
        before = db.total_changes
        db.executemany(
            f"INSERT INTO events ({', '.join(NewEvent._fields)}) VALUES ({', '.join('?' * len(NewEvent._fields))}) "
            "ON CONFLICT (key) DO NOTHING",
            events,
        )
        added = db.total_changes - before
        self._rows_since_trim += added
        if self._rows_since_trim >= TRIM_AFTER_ROWS:
            self._trim(db)
        return added

    def _trim(self, db: sqlite3.Connection) -> int:
        self._rows_since_trim = 0
        # a failed run that was not reported to the control plane stays, whatever its age
        reported = "(outcome != 'failed' OR reported_at IS NOT NULL)"
        newest = "(SELECT run_id FROM runs ORDER BY run_id DESC LIMIT ?)"
        db.execute(
            f"UPDATE runs SET document='', reason='' WHERE document != '' AND {reported} AND run_id NOT IN {newest}",
            (MAX_FULL_RUNS,),
        )
        db.execute(f"DELETE FROM runs WHERE {reported} AND run_id NOT IN {newest}", (MAX_KNOWN_RUNS,))
        return retention.trim(db, "events", self._keep, clock.now(), self._boot_id)
