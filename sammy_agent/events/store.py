# SPDX-License-Identifier: Apache-2.0
"""The event store: runs and their steps in SQLite, fed from the state file and the run records.

An event's id is made from what it is (run, step, attempt, status), so feeding the same record again adds nothing and
no event is lost to a clash of empty ids, which once left SAM a single row of its first boot. Order is `seq`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from cc_sammy.contract.fields import Outcome, Status
from cc_sammy.contract.state import RunRecord, StepRecord
from sammy_agent import files
from sammy_agent.errors import StoreUnusable

LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
_SCHEMA = (
    """CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, instance_id TEXT NOT NULL, wall_clock TEXT NOT NULL,
        outcome TEXT NOT NULL, reason TEXT NOT NULL, duration_ms REAL, document TEXT NOT NULL, reported_at TEXT)""",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL,
        run_id TEXT NOT NULL, boot_id TEXT NOT NULL, level TEXT NOT NULL, type TEXT NOT NULL, step TEXT NOT NULL,
        status TEXT NOT NULL, duration_ms REAL, attempt INTEGER NOT NULL, message TEXT NOT NULL)""",
    "CREATE INDEX events_by_type ON events (type, seq)",
    "CREATE INDEX events_by_run ON events (run_id, seq)",
)


class EventStore:
    """One file, opened when first needed, so that a disk that is full at the start only delays it. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"<EventStore {self._path}>"

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def add_run(self, record: RunRecord) -> bool:
        """Keep a run as it is now, with an event for each step that began or ended.

        :return: whether it was kept; a run that ended is not overwritten by an older record of it.
        :raises sqlite3.Error: the store cannot be written.
        """
        with self._transaction() as db:
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
                    "INSERT INTO events (id, created_at, run_id, boot_id, level, type, step, status, duration_ms, "
                    "attempt, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    row,
                )
        return True

    def unreported_failures(self) -> list[RunRecord]:
        """Return failed runs that the control plane does not know of yet, oldest first. sqlite3.Error."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT document FROM runs WHERE outcome=? AND reported_at IS NULL ORDER BY run_id",
                (Outcome.FAILED.value,),
            ).fetchall()
        return [RunRecord.from_json(row[0]) for row in rows]

    def mark_reported(self, run_id: str) -> None:
        """Remember that the control plane has a failed run. sqlite3.Error."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._transaction() as db:
            db.execute("UPDATE runs SET reported_at=? WHERE run_id=?", (now, run_id))

    def events(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest events, newest first. sqlite3.Error."""
        with self._transaction() as db:
            cursor = db.execute("SELECT * FROM events ORDER BY seq DESC LIMIT ?", (limit,))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db is None:
                self._db = _open(self._path)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself (disk full)
                    self._db.execute("ROLLBACK")
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


def _open(path: str) -> sqlite3.Connection:
    """Open the file; one that is no database any more is set aside, since all of it can be fed anew."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # full, locked, read-only: the file is fine
            raise
        LOG.warning("%s is damaged (%s); it is kept as %s.damaged and begun anew", path, error, path)
        os.replace(path, path + ".damaged")
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
        return _connect(path)


def _connect(path: str) -> sqlite3.Connection:
    try:
        files.make_private(path)
    except OSError as error:  # for the caller it is what SQLite would have said
        raise sqlite3.OperationalError(str(error)) from error
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreUnusable(f"{path} was written by a later version of sammy-agent", "Install that version")
        if version == 0:
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


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
