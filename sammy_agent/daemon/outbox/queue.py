# SPDX-License-Identifier: Apache-2.0
"""The queue on disk: one SQLite file, one thread that writes, and callers that go on when their rows are durable.

The bounds are applied in the same transaction; totals are kept in it too, since counting a million rows at the start
would cost more than the start.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime.log_throttle import LogThrottle
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.storage.sqlite import Database, is_corruption, seed_autoincrement_from_clock
from sammy_agent.daemon.outbox.channels import CHANNELS, Lane, NewRow, Priority, QueuedRow, batch
from sammy_agent.daemon.outbox.group_commit import GroupCommit, NotWriting, Work, WriteRequest

LOG = logging.getLogger(__name__)
LOG_INTERVAL = 600.0  # seconds between two messages that the outbox is full
MIGRATIONS = (
    (
        # what is known of a bad row at the lane's head, as long as that is the row `head`
        """CREATE TABLE lanes (
            id INTEGER PRIMARY KEY, channel TEXT NOT NULL, owner TEXT NOT NULL, head INTEGER,
            suspects INTEGER NOT NULL DEFAULT 0, refusals INTEGER NOT NULL DEFAULT 0,
            streak INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, UNIQUE (channel, owner))""",
        """CREATE TABLE rows (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, id TEXT NOT NULL, weight INTEGER NOT NULL,
            size INTEGER NOT NULL, session TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (lane, id))""",
        "CREATE INDEX rows_by_lane ON rows (lane, seq)",
        "CREATE INDEX rows_by_weight ON rows (weight, seq)",
        """CREATE TABLE set_aside (
            seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, owner TEXT NOT NULL, id TEXT NOT NULL,
            weight INTEGER NOT NULL, size INTEGER NOT NULL, session TEXT NOT NULL, body TEXT NOT NULL,
            reason TEXT NOT NULL, at REAL NOT NULL)""",
        "CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    ),
)


class OutboxUnavailable(AgentError):
    """The outbox could not take rows; none of them is kept, and the caller must handle that."""

    code = Code.OUTBOX_UNAVAILABLE


@dataclass(frozen=True)
class Bounds:
    """What the outbox may hold; beyond it the oldest row of the lowest priority goes."""

    rows: int = 200_000
    bytes: int = 256 * 1024 * 1024
    dead_letters: int = 1000


class PoisonState(NamedTuple):
    """What is known of a bad row at a lane's head (see retry_policy.LaneState); `due` in seconds since the epoch."""

    suspect_rows: int = 0
    refusals: int = 0
    consecutive_rejections: int = 0
    due: float = 0.0


class DeadLetter(NamedTuple):
    """News of a row that the control plane rejected permanently."""

    lane: Lane
    id: str
    reason: str

    def __str__(self) -> str:
        channel, owner = self.lane
        return f"{channel} of {owner}: row {self.id} rejected permanently, moved to dead letters: {self.reason}"


class Outbox:
    """The queue. Thread-safe; nothing in it is lost by a kill or a power cut once `add` has returned."""

    def __init__(self, path: str, bounds: Bounds = Bounds()) -> None:
        self._database = Database(path, MIGRATIONS, synchronous="FULL")
        self._bounds = bounds
        self._writer = GroupCommit("outbox-writer", self._commit, self._report_dropped)
        self._lanes: dict[Lane, int] = {}
        self._totals: dict[str, int] | None = None
        self._log_throttle = LogThrottle(LOG_INTERVAL)
        # a lane has new rows: emitted in the caller's thread
        self.rows_added: Signal[Lane] = Signal()
        # rows will not arrive: how many a full outbox dropped (in the writer's thread), and each dead letter
        self.dropped: Signal[int] = Signal()
        self.dead_lettered: Signal[DeadLetter] = Signal()

    def __repr__(self) -> str:
        return f"<Outbox {self._database.path}>"

    def close(self) -> None:
        """Write what waits and close the file."""
        self._writer.close()
        self._database.close()

    def add(self, lane: Lane, rows: Sequence[NewRow]) -> None:
        """Keep rows at the lane's end; return when they would survive a power cut. A queued id is ignored.

        :raises OutboxUnavailable: the disk is full or broken; none of the rows is kept.
        """
        sized = [(row, len(row.body.encode()) + CHANNELS[lane.channel].row_overhead) for row in rows]
        self._submit_checked(lambda db: self._insert(db, lane, sized))
        self.rows_added.emit(lane)

    def head(self, lane: Lane, most: int) -> list[QueuedRow]:
        """Return the oldest rows of a lane that may share a request, at most so many. sqlite3.Error."""
        with self._read() as db:
            found = db.execute(
                "SELECT seq, rows.id, body, size, session FROM rows JOIN lanes ON lanes.id = lane "
                "WHERE channel=? AND owner=? ORDER BY seq",
                lane,
            )
            rows = batch(map(QueuedRow._make, found), CHANNELS[lane.channel], most)
            found.close()
        return rows

    def remove(self, rows: Sequence[QueuedRow]) -> None:
        """Remove rows that were delivered. sqlite3.Error."""
        self._submit(lambda db: self._delete(db, rows))

    def dead_letter(self, lane: Lane, rows: Sequence[QueuedRow], reason: str) -> None:
        """Move rows to the dead letters, with the reason. sqlite3.Error."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT OR REPLACE INTO set_aside "
                "SELECT seq, ?, ?, id, weight, size, session, body, ?, ? FROM rows WHERE seq=?",
                [(*lane, reason, time.time(), row.seq) for row in rows],
            )
            self._delete(db, rows)
            db.execute(
                "DELETE FROM set_aside WHERE seq NOT IN (SELECT seq FROM set_aside ORDER BY seq DESC LIMIT ?)",
                (self._bounds.dead_letters,),
            )
            self._count("set_aside", len(rows))

        self._submit(work)
        for row in rows:
            news = DeadLetter(lane, row.id, reason)
            LOG.error("%s", news)
            self.dead_lettered.emit(news)

    def requeue(self, ids: Sequence[str] | None = None) -> int:
        """Put dead letters back at their lanes' ends, all or those with the ids; return how many.

        :raises OutboxUnavailable: the disk is full or broken; all stay where they are.
        """

        def work(db: sqlite3.Connection) -> dict[Lane, int]:
            found = db.execute(
                "SELECT seq, channel, owner, id, weight, size, session, body FROM set_aside ORDER BY seq"
            )
            moved: dict[Lane, int] = {}
            for seq, channel, owner, id, weight, size, session, body in found.fetchall():
                lane = Lane(channel, owner)
                if (ids is None or id in ids) and channel in CHANNELS:
                    self._insert(db, lane, [(NewRow(id, body, Priority(weight), session), size)])
                    db.execute("DELETE FROM set_aside WHERE seq=?", (seq,))
                    moved[lane] = moved.get(lane, 0) + 1
            return moved

        moved: dict[Lane, int] = self._submit_checked(work)
        for lane in moved:
            self.rows_added.emit(lane)
        return sum(moved.values())

    def lanes(self) -> list[Lane]:
        """Return the lanes that hold rows. sqlite3.Error."""
        with self._read() as db:
            found = db.execute(
                "SELECT channel, owner FROM lanes WHERE EXISTS (SELECT 1 FROM rows WHERE lane=lanes.id)"
            ).fetchall()
        return [Lane(*row) for row in found if row[0] in CHANNELS]

    def poison_state(self, lane: Lane) -> PoisonState:
        """Return what an earlier process knew of the row that is a lane's head. sqlite3.Error."""
        with self._read() as db:
            row = db.execute(
                "SELECT suspects, refusals, streak, due FROM lanes WHERE channel=? AND owner=? "
                "AND head=(SELECT MIN(seq) FROM rows WHERE lane=lanes.id)",
                lane,
            ).fetchone()
        return PoisonState(*row) if row else PoisonState()

    def save_poison_state(self, lane: Lane, known: PoisonState) -> None:
        """Keep what is known of the row at a lane's head; an agent that is killed often would restart the bisection.

        :raises sqlite3.Error: it cannot be kept.
        """
        self._submit(
            lambda db: db.execute(
                "UPDATE lanes SET suspects=?, refusals=?, streak=?, due=?, "
                "head=(SELECT MIN(seq) FROM rows WHERE lane=lanes.id) WHERE channel=? AND owner=?",
                (*known, *lane),
            )
        )

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the rows that were rejected permanently, oldest first. sqlite3.Error."""
        with self._read() as db:
            cursor = db.execute("SELECT channel, owner, id, reason, at, body FROM set_aside ORDER BY seq")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def totals(self) -> dict[str, int]:
        """Return rows and bytes queued, rows set_aside_now, and what was ever set_aside or dropped. sqlite3.Error."""
        with self._read() as db:
            (aside,) = db.execute("SELECT COUNT(*) FROM set_aside").fetchone()
            totals = dict(db.execute("SELECT * FROM totals"))
        return {"rows": 0, "bytes": 0, "set_aside": 0, "dropped": 0, **totals, "set_aside_now": aside}

    @property
    def corruption(self) -> str:
        """What was found corrupt, and where it lies now."""
        return self._database.corruption

    @property
    def on_corruption(self) -> Signal[str]:
        """Emitted in the thread that met it; who is connected must not wait for the outbox."""
        return self._database.on_corruption

    def snapshot(self, path: str) -> None:
        """Write a consistent copy. sqlite3.Error."""
        self._database.snapshot(path)

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to read with; corruption that it meets is moved aside by the writer at once."""
        try:
            with self._database.read() as db:
                yield db
        except sqlite3.DatabaseError as error:
            if is_corruption(error):
                with contextlib.suppress(sqlite3.Error, OSError, AgentError):
                    self._submit(lambda db: None)
            raise

    def _submit_checked(self, work: Work) -> Any:
        """Do what a component hands in. OutboxUnavailable when it cannot be done."""
        try:
            return self._submit(work)
        except (sqlite3.Error, OSError, AgentError) as error:
            raise OutboxUnavailable(f"{self._database.path}: {error}", "Check the disk: df -h /var") from error

    def _submit(self, work: Work) -> Any:
        """Have the writer do the work and wait for its commit."""
        try:
            return self._writer.submit(work)
        except NotWriting as error:
            raise OutboxUnavailable(f"the outbox does not take rows: {error}") from error

    def _commit(self, requests: Sequence[WriteRequest]) -> int:
        """Do all requests and apply the bounds in one transaction; return how many rows were dropped."""
        try:
            with self._database.transaction() as db:
                if self._totals is None:
                    self._totals = dict(db.execute("SELECT * FROM totals"))
                    seed_autoincrement_from_clock(db, "rows")  # the wire's `sequence`
                for request in requests:
                    request.result = request.work(db)
                dropped = self._evict(db)
                db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", self._totals.items())
        except BaseException:
            self._totals, self._lanes = None, {}  # what memory says of the file may be wrong now
            raise
        return dropped

    def _report_dropped(self, dropped: int) -> None:
        self.dropped.emit(dropped)
        if self._log_throttle.allow() is not None:
            LOG.error("outbox full: dropped %d rows (oldest, lowest priority)", dropped)

    def _insert(self, db: sqlite3.Connection, lane: Lane, sized: Sequence[tuple[NewRow, int]]) -> None:
        number = self._lanes.get(lane)
        if number is None:
            db.execute("INSERT OR IGNORE INTO lanes (channel, owner) VALUES (?, ?)", lane)
            number = db.execute("SELECT id FROM lanes WHERE channel=? AND owner=?", lane).fetchone()[0]
            self._lanes[lane] = number
        for row, size in sized:
            done = db.execute(
                "INSERT OR IGNORE INTO rows (lane, id, weight, size, session, body) VALUES (?, ?, ?, ?, ?, ?)",
                (number, row.id, int(row.priority), size, row.group, row.body),
            )
            if done.rowcount == 1:
                self._count("rows", 1)
                self._count("bytes", size)

    def _delete(self, db: sqlite3.Connection, rows: Sequence[QueuedRow]) -> None:
        for row in rows:
            if db.execute("DELETE FROM rows WHERE seq=?", (row.seq,)).rowcount == 1:  # else the bounds dropped it
                self._count("rows", -1)
                self._count("bytes", -row.size)

    def _evict(self, db: sqlite3.Connection) -> int:
        """Give up the oldest rows of the lowest weight until the bounds hold; return how many."""
        assert self._totals is not None
        dropped = 0
        while True:
            too_many = self._totals.get("rows", 0) - self._bounds.rows
            if too_many <= 0 and self._totals.get("bytes", 0) <= self._bounds.bytes:
                return dropped
            gone = db.execute(
                "DELETE FROM rows WHERE seq IN (SELECT seq FROM rows ORDER BY weight, seq LIMIT ?) "
                "RETURNING size, weight",
                (max(1, too_many),),
            ).fetchall()
            if not gone:
                return dropped
            for size, weight in gone:
                self._count("rows", -1)
                self._count("bytes", -size)
                self._count("dropped", 1)
                self._count(f"dropped_{Priority(weight).counter}", 1)
            dropped += len(gone)

    def _count(self, name: str, change: int) -> None:
        assert self._totals is not None
        self._totals[name] = self._totals.get(name, 0) + change
