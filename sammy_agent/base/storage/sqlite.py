# SPDX-License-Identifier: Apache-2.0
"""A SQLite file that outlives what happens to files: older schemas, full disks, damage, a kill at any moment.

The event store and the outbox stand on it. Damage is found when the file is opened or in the middle of work; either
way the file is moved aside once, said, and begun anew at the next call: an agent that dies of its own records would be
restarted by systemd only to die again. Readers open it for reading only, so they wait for no writer and need no agent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.runtime import files

LOG = logging.getLogger(__name__)
PATIENCE = 5.0
LONGEST_JOURNAL = 1024 * 1024  # bytes of the -wal file that stay after a checkpoint
Migration = Sequence[str]


class Database:
    """One connection, opened when first needed, so that a disk that is full at the start only delays it. Thread-safe.

    :param migrations: the n-th brings the schema from version n to n + 1; one that was released is never changed.
    :param synchronous: FULL where a commit must outlive a power cut, else NORMAL.
    :param shrinks: a new file is laid out so that `retention` can give its free pages back.
    """

    def __init__(
        self, path: str, migrations: Sequence[Migration], *, synchronous: str = "NORMAL", shrinks: bool = False
    ) -> None:
        self.path = path
        self._migrations, self._synchronous, self._shrinks = migrations, synchronous, shrinks
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._suspect = False
        self._file: tuple[int, int] | None = None
        # what was found damaged and where it lies now, for the status; how often; and who is told, under our lock
        self.damage = ""
        self.damages = 0
        self.on_damage: Callable[[str], None] = lambda words: None

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                db, self._db = self._db, None
                db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection in a transaction that is committed with the block.

        :raises sqlite3.Error: it cannot be read or written; nothing of the block is kept.
        :raises StoreUnusable: a later version wrote it.
        """
        with self._lock:
            try:
                if self._db is None or self._file != _identity(self.path):
                    self.close()  # an admin may have removed the file: what is written to it then is lost
                    self._db = self._open()
                    self._file = _identity(self.path)
                if self._suspect:
                    self._check(self._db)
                with _committed(self._db):
                    yield self._db
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    self.close()
                    self._move_aside(error)
                elif isinstance(error, sqlite3.OperationalError):
                    self.close()  # after trouble with a disk only a new one is sure to be good
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a connection of its own that can only read, None while there is no file; waits for no writer.

        :raises sqlite3.Error: it cannot be read.
        :raises StoreUnusable: another version wrote it.
        :raises PermissionError: it is not for this user to read.
        """
        db = _connect_to_read(self.path)
        if db is None:
            yield None
            return
        with contextlib.closing(db), self._suspecting():
            db.execute("BEGIN")  # what it sees does not change while it looks
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:  # a disk that was full when it was made
                yield None
                return
            if version > len(self._migrations):
                raise self._of_later_version()
            if version < len(self._migrations):
                raise StoreUnusable(
                    f"{self.path} was written by an older version of sammy-agent",
                    "The agent brings it up to date when it starts: systemctl restart sammy-agent",
                )
            yield db

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

    @contextlib.contextmanager
    def _suspecting(self) -> Iterator[None]:
        """Have the writer look at a file in which a reader met damage: it might never come to that page itself."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._suspect = self._suspect or _is_damage(error)
            raise

    def _check(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
        self._suspect = False

    def _move_aside(self, error: sqlite3.Error) -> None:
        """Put the damaged file, with its journal, where a person may look at it; the one before it goes."""
        aside = self.path + ".damaged"
        try:
            for suffix in ("", "-wal"):
                files.remove(aside + suffix)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path + suffix, aside + suffix)
            files.remove(self.path + "-shm")
        except OSError as trouble:
            raise sqlite3.OperationalError(f"damaged ({error}), and not to be moved: {trouble.strerror}") from error
        self.damage = f"{self.path} was damaged ({error}); it is kept as {aside}"
        self.damages += 1
        self._suspect = False
        LOG.error("%s and begun anew", self.damage)
        self.on_damage(self.damage)

    def _connect(self) -> sqlite3.Connection:
        try:
            files.make_private(self.path)
        except OSError as error:  # for the caller it is what SQLite would have said
            raise sqlite3.OperationalError(str(error)) from error
        db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            if self._shrinks:
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # takes effect in an empty file only
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA journal_size_limit={LONGEST_JOURNAL}")
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
            raise self._of_later_version()
        for statements in self._migrations[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(self._migrations)}")

    def _of_later_version(self) -> StoreUnusable:
        return StoreUnusable(f"{self.path} was written by a later version of sammy-agent", "Install that version")


def number_from_the_clock(db: sqlite3.Connection, table: str) -> None:
    """Begin a new file's numbers at the clock, in microseconds: they must not fall back after a damaged file."""
    if db.execute("SELECT 1 FROM sqlite_sequence WHERE name=?", (table,)).fetchone() is None:
        db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, time.time_ns() // 1000))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _connect_to_read(path: str) -> sqlite3.Connection | None:
    try:
        open(path, "rb").close()  # SQLite's own words would not tell a missing file from a forbidden one
    except FileNotFoundError:
        return None
    try:
        return _connect_by(f"file:{quote(path)}?mode=ro")
    except sqlite3.OperationalError:
        # on a disk that is read-only SQLite may not even lay its lock file beside it
        return _connect_by(f"file:{quote(path)}?mode=ro&immutable=1")


def _connect_by(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only now is the file opened
    except BaseException:
        db.close()
        raise
    return db


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
