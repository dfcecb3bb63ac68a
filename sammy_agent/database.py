# SPDX-License-Identifier: Apache-2.0
"""A SQLite file that outlives what happens to files: older schemas, full disks, damage, a kill at any moment.

The event store and the outbox stand on it. Damage is found when the file is opened or in the middle of work; either
way the file is moved aside once, said, and begun anew at the next call: an agent that dies of its own records would be
restarted by systemd only to die again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence

from sammy_agent import files
from sammy_agent.errors import StoreUnusable

LOG = logging.getLogger(__name__)
PATIENCE = 5.0
Migration = Sequence[str]


class Database:
    """One connection, opened when first needed, so that a disk that is full at the start only delays it. Thread-safe.

    :param migrations: the n-th brings the schema from version n to n + 1; one that was released is never changed.
    :param synchronous: FULL where a commit must outlive a power cut, else NORMAL.
    """

    def __init__(self, path: str, migrations: Sequence[Migration], *, synchronous: str = "NORMAL") -> None:
        self.path = path
        self._migrations, self._synchronous = migrations, synchronous
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        # what was found damaged and where it lies now, for the status
        self.damage = ""

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection in a transaction that is committed with the block.

        :raises sqlite3.Error: it cannot be read or written; nothing of the block is kept.
        :raises StoreUnusable: a later version wrote it.
        """
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._open()
                with _committed(self._db):
                    yield self._db
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    self.close()
                    self._move_aside(error)
                raise

    def snapshot(self, path: str) -> None:
        """Write a consistent copy to `path`, readable by root only, while others read and write. sqlite3.Error."""
        with self.transaction():
            pass  # the file exists and is of this version
        files.make_private(path)
        with (
            contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE)) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)  # in one step: one read transaction, which in WAL hinders no writer

    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):  # full, locked, read-only: the file is fine
                raise
            self._move_aside(error)
            return self._connect()

    def _move_aside(self, error: sqlite3.Error) -> None:
        self.damage = f"{self.path} was damaged ({error}); it is kept as {self.path}.damaged"
        LOG.error("%s and begun anew", self.damage)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, self.path + ".damaged")
        for suffix in ("-wal", "-shm"):
            files.remove(self.path + suffix)

    def _connect(self) -> sqlite3.Connection:
        try:
            files.make_private(self.path)
        except OSError as error:  # for the caller it is what SQLite would have said
            raise sqlite3.OperationalError(str(error)) from error
        db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={self._synchronous}")
            with _committed(db):
                self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(self._migrations):
            raise StoreUnusable(f"{self.path} was written by a later version of sammy-agent", "Install that version")
        for statements in self._migrations[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(self._migrations)}")


@contextlib.contextmanager
def _committed(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself (disk full)
            db.execute("ROLLBACK")
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    """Tell a damaged file (the base class itself: malformed, not a database) from trouble that passes."""
    return type(error) is sqlite3.DatabaseError
