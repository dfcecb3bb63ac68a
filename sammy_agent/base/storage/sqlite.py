# SPDX-License-Identifier: Apache-2.0
"""A SQLite file that outlives what happens to files: older schemas, full disks, corruption, a kill at any moment.

Event store, metrics, outbox and the embedded control plane stand on it. Corruption is found when the file is opened or
in the middle of work; either way the file is moved to `.damaged` once, reported, and recreated at the next call: an
agent that dies of its own records would be restarted by systemd only to die again. `transaction()` writes; `read()` has
connections of its own, so it waits for no writer and needs no agent.

Nothing but SQLite opens the file: closing any other descriptor of it would drop the locks that SQLite holds in this
process (POSIX), and the next process to close the file would delete the write-ahead log under us.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence

from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.storage.reader_pool import BUSY_TIMEOUT, FileId, ReadConnection, ReaderPool, file_id

LOG = logging.getLogger(__name__)
MAX_WAL_BYTES = 1024 * 1024  # of the -wal file, that stay after a checkpoint
Migration = Sequence[str]


class Database:
    """One writing connection, opened when first needed: a disk that is full at the start only delays it. Thread-safe.

    :param migrations: the n-th brings the schema from version n to n + 1; one that was released is never changed.
    :param synchronous: FULL where a commit must outlive a power cut, else NORMAL.
    :param shrinks: a new file is laid out so that `retention` can give its free pages back.
    :param read_only: the file is another process's, and stays as it is, also where it is of an older version.
    :param quarantine: a corrupt file is moved aside and recreated; else that is left to a person.
    """

    def __init__(
        self,
        path: str,
        migrations: Sequence[Migration],
        *,
        synchronous: str = "NORMAL",
        shrinks: bool = False,
        read_only: bool = False,
        quarantine: bool = True,
        row_factory: type[sqlite3.Row] | None = None,
    ) -> None:
        self.path = path
        self._migrations, self._synchronous, self._shrinks = migrations, synchronous, shrinks
        self._read_only, self._quarantines, self._row_factory = read_only, quarantine, row_factory
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._needs_check = False
        self._file: FileId | None = None
        self._readers = ReaderPool(path, row_factory)
        # what was found corrupt and where it lies now, for the status; how often; and who is told, under our lock
        self.corruption = ""
        self.corruptions = 0
        self.on_corruption: Signal[str] = Signal()

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def close(self) -> None:
        """Close the file."""
        self._readers.close()  # before the writer, which as the last one out puts the log into the file
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
                if self._db is None or self._file != file_id(self.path):
                    self.close()  # an admin may have removed the file: what is written to it then is lost
                    self._db = self._open()
                    self._file = file_id(self.path)
                if self._needs_check:
                    self._check(self._db)
                with _committed(self._db):
                    yield self._db
            except sqlite3.DatabaseError as error:
                if is_corruption(error) and self._quarantines:
                    self.close()
                    self._quarantine(error)
                elif isinstance(error, sqlite3.OperationalError):
                    self.close()  # after trouble with a disk only a new one is sure to be good
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that can only read and sees one snapshot; waits for no writer, in this process or another.

        A file that is not there yet reads like an empty one, and is not made.

        :raises sqlite3.Error: it cannot be read.
        :raises StoreUnusable: another version wrote it.
        :raises PermissionError: it is not for this user to read.
        """
        with self._flagging_corruption():
            reader = self._begin_read()
            try:
                yield reader.db
                reader.db.execute("COMMIT")
            except BaseException:
                reader.db.close()
                raise
            self._readers.release(reader)

    def snapshot(self, path: str) -> None:
        """Write a consistent copy to `path`, readable by root only, while others read and write. sqlite3.Error."""
        with self.transaction():
            pass  # the file exists and is of this version
        files.make_private(path)
        with (
            contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT)) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)  # in one step: one read transaction, which in WAL hinders no writer

    def _open(self) -> sqlite3.Connection:
        if self._read_only:
            raise sqlite3.OperationalError(f"{self.path} was opened for reading only")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not is_corruption(error) or not self._quarantines:  # full, locked, read-only: the file is fine
                raise
            self._quarantine(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            files.make_private(self.path)
        except OSError as error:  # for the caller it is what SQLite would have said
            raise sqlite3.OperationalError(str(error)) from error
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = self._row_factory
            if self._shrinks:
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # takes effect in an empty file only
            _use_wal(db)
            db.execute(f"PRAGMA journal_size_limit={MAX_WAL_BYTES}")
            db.execute(f"PRAGMA synchronous={self._synchronous}")
            with _committed(db):
                self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = _version(db)
        if version > len(self._migrations):
            raise self._of_later_version()
        for statements in self._migrations[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(self._migrations)}")

    def _of_later_version(self) -> StoreUnusable:
        return StoreUnusable(f"{self.path} was written by a later version of sammy-agent", "Install that version")

    def _begin_read(self) -> ReadConnection:
        """Return a connection in a read transaction, on a file of this version."""
        reader = self._readers.acquire()
        version = _take_snapshot(reader.db)
        if 0 < version < len(self._migrations) and not self._read_only:
            reader.db.close()
            with self.transaction():
                pass  # it is of this version now
            reader = self._readers.acquire()
            version = _take_snapshot(reader.db)
        if version == 0:  # there is no file, or one that was made on a full disk
            reader.db.close()
            reader = self._readers.in_memory()
            self._migrate(reader.db)
            version = _take_snapshot(reader.db)
        if version == len(self._migrations):
            return reader
        reader.db.close()
        if version > len(self._migrations):
            raise self._of_later_version()
        raise StoreUnusable(
            f"{self.path} was written by an older version of sammy-agent",
            "The agent brings it up to date when it starts: systemctl restart sammy-agent",
        )

    @contextlib.contextmanager
    def _flagging_corruption(self) -> Iterator[None]:
        """Have the writer check a file in which a reader met corruption: it might never come to that page itself."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._needs_check = self._needs_check or is_corruption(error)
            raise

    def _check(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
        self._needs_check = False

    def _quarantine(self, error: sqlite3.Error) -> None:
        """Move the corrupt file, with its journal, where a person may look at it; an earlier one is removed."""
        self._readers.close()
        aside = self.path + ".damaged"
        try:
            for suffix in ("", "-wal"):
                files.remove(aside + suffix)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path + suffix, aside + suffix)
            files.remove(self.path + "-shm")
        except OSError as trouble:
            raise sqlite3.OperationalError(f"corrupt ({error}), and cannot be moved: {trouble.strerror}") from error
        self.corruption = f"{self.path} is corrupt ({error}): moved to {aside} and recreated"
        self.corruptions += 1
        self._needs_check = False
        LOG.error("%s", self.corruption)
        self.on_corruption.emit(self.corruption)


def seed_autoincrement_from_clock(db: sqlite3.Connection, table: str) -> None:
    """Begin a new file's numbers at the clock, in microseconds: they must not fall back after a corrupt file."""
    if db.execute("SELECT 1 FROM sqlite_sequence WHERE name=?", (table,)).fetchone() is None:
        db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, time.time_ns() // 1000))


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _take_snapshot(db: sqlite3.Connection) -> int:
    """Begin to read, and return the version of the file as this transaction now sees it to its end."""
    try:
        db.execute("BEGIN")
        return _version(db)  # SQLite takes the snapshot at the first read
    except BaseException:
        db.close()
        raise


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch the file to WAL; SQLite's busy timeout does not cover this while another process does it as well."""
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


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


def is_corruption(error: sqlite3.Error) -> bool:
    """Tell a corrupt file (the base class itself: malformed, not a database) from trouble that passes."""
    return type(error) is sqlite3.DatabaseError
