# SPDX-License-Identifier: Apache-2.0
"""The event store: runs and their steps in SQLite, fed from the state file and the run records.

An event's id is made from what it is (run, step, attempt, status), so feeding the same record again adds nothing and
no event is lost to a clash of empty ids, which once left SAM a single row of its first boot. Order is `seq`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from cc_sammy.contract.fields import Outcome, Status
from cc_sammy.contract.state import RunRecord, StepRecord
from sammy_agent.database import Database

LOG = logging.getLogger(__name__)
_COLUMNS = (
    "id", "created_at", "run_id", "boot_id", "level", "type", "step", "status", "duration_ms", "attempt", "message",
)  # fmt: skip
MIGRATIONS = (
    (
        """CREATE TABLE runs (
            run_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, instance_id TEXT NOT NULL, wall_clock TEXT NOT NULL,
            outcome TEXT NOT NULL, reason TEXT NOT NULL, duration_ms REAL, document TEXT NOT NULL, reported_at TEXT)""",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL,
            run_id TEXT NOT NULL, boot_id TEXT NOT NULL, level TEXT NOT NULL, type TEXT NOT NULL, step TEXT NOT NULL,
            status TEXT NOT NULL, duration_ms REAL, attempt INTEGER NOT NULL, message TEXT NOT NULL)""",
        "CREATE INDEX events_by_type ON events (type, seq)",
        "CREATE INDEX events_by_run ON events (run_id, seq)",
    ),
)


class EventStore:
    """One file, opened when first needed, so that a disk that is full at the start only delays it. Thread-safe."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._database = Database(path, MIGRATIONS)

    def __repr__(self) -> str:
        return f"<EventStore {self._database.path}>"

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def damage(self) -> str:
        """Say what was found damaged, and where it lies."""
        return self._database.damage

    def snapshot(self, path: str) -> None:
        """Write a consistent copy, by SQLite's backup, while others go on writing. sqlite3.Error."""
        self._database.snapshot(path)

    def add_run(self, record: RunRecord) -> bool:
        """Keep a run as it is now, with an event for each step that began or ended.

        :return: whether it was kept; a run that ended is not overwritten by an older record of it.
        :raises sqlite3.Error: the store cannot be written.
        """
        with self._database.transaction() as db:
            known = db.execute("SELECT outcome FROM runs WHERE run_id=?", (record.run_id,)).fetchone()
            if known is not None and known[0] != Outcome.RUNNING.value and record.outcome is Outcome.RUNNING:
                return False
            db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (run_id) DO UPDATE SET "
                "outcome=excluded.outcome, reason=excluded.reason, duration_ms=excluded.duration_ms, "
                "document=excluded.document",
                (record.run_id, record.boot_id, record.instance_id, record.wall_clock, record.outcome.value,
                 record.reason, record.duration_ms, record.to_json()),
            )  # fmt: skip
            for row in _events(record):
                db.execute(
                    f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (id) DO NOTHING",
                    row,
                )
        return True

    def unreported_failures(self) -> list[RunRecord]:
        """Return failed runs that the control plane does not know of yet, oldest first. sqlite3.Error."""
        with self._database.transaction() as db:
            rows = db.execute(
                "SELECT document FROM runs WHERE outcome=? AND reported_at IS NULL ORDER BY run_id",
                (Outcome.FAILED.value,),
            ).fetchall()
        return [RunRecord.from_json(row[0]) for row in rows]

    def mark_reported(self, run_id: str) -> None:
        """Remember that the control plane has a failed run. sqlite3.Error."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._database.transaction() as db:
            db.execute("UPDATE runs SET reported_at=? WHERE run_id=?", (now, run_id))

    def events(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest events, newest first. sqlite3.Error."""
        with self._database.transaction() as db:
            cursor = db.execute("SELECT * FROM events ORDER BY seq DESC LIMIT ?", (limit,))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _events(record: RunRecord) -> Iterator[tuple[object, ...]]:
    for step in record.steps:
        if step.started is not None and step.status is not Status.SKIPPED:
            yield _row(record, step, Status.STARTED, step.started)
        if step.status in (Status.COMPLETED, Status.FAILED, Status.SKIPPED):
            began = record.started if step.started is None else step.started
            yield _row(record, step, step.status, began + (step.duration_ms or 0.0) / 1000)


def _row(record: RunRecord, step: StepRecord, status: Status, boottime: float) -> tuple[object, ...]:
    ended = status is not Status.STARTED
    message = f"{step.name} {status.value}" + (f": {step.reason}" if ended and step.reason else "")
    return (
        f"{record.run_id}/{step.name}/{step.attempt}/{status.value}",
        _wall_clock(record, boottime),
        record.run_id,
        record.boot_id,
        ("error" if step.required else "warn") if status is Status.FAILED else "info",
        f"provision.{step.name}",
        step.name,
        status.value,
        step.duration_ms if ended else None,
        step.attempt,
        message,
    )


def _wall_clock(record: RunRecord, boottime: float) -> str:
    """Return a time of CLOCK_BOOTTIME by the wall clock that the run began with."""
    began = datetime.fromisoformat(record.wall_clock)
    return (began + timedelta(seconds=boottime - record.started)).isoformat(timespec="milliseconds")
