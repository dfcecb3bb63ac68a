# SPDX-License-Identifier: Apache-2.0
"""Connections that can only read a SQLite file: they wait for no writer. One is kept open between two reads.

Opening one costs forty times a read of a row; more than one are open only while reads overlap.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import NamedTuple
from urllib.parse import quote

BUSY_TIMEOUT = 5.0  # seconds
FileId = tuple[int, int]


class ReadConnection(NamedTuple):
    """A connection; `file` is None where it must not be used a second time."""

    db: sqlite3.Connection
    file: FileId | None


class ReaderPool:
    """The connections to one path. Thread-safe; a connection is of the thread that has acquired it."""

    def __init__(self, path: str, row_factory: type[sqlite3.Row] | None) -> None:
        self._path, self._row_factory = path, row_factory
        self._idle: list[ReadConnection] = []

    def acquire(self) -> ReadConnection:
        """Return a connection outside any transaction; where there is no file, one to an empty database in memory.

        :raises sqlite3.Error: it cannot be read.
        :raises PermissionError: it is not for this user to read.
        """
        with contextlib.suppress(IndexError):
            reader = self._idle.pop()
            if reader.file == file_id(self._path):
                return reader
            reader.db.close()  # the file was moved or removed since
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return self.in_memory()
        if not os.access(self._path, os.R_OK):  # SQLite would say the same of a missing and of a forbidden file
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
        uri = f"file:{quote(self._path)}?mode=ro"
        try:
            return ReadConnection(self._connect(uri), (status.st_dev, status.st_ino))
        except sqlite3.OperationalError:
            # on a disk that is read-only SQLite may not even lay its lock file beside it
            return ReadConnection(self._connect(f"{uri}&immutable=1"), None)

    def in_memory(self) -> ReadConnection:
        """Return a connection to an empty database."""
        return ReadConnection(self._connect("file::memory:"), None)

    def release(self, reader: ReadConnection) -> None:
        """Take a connection back, outside any transaction."""
        if reader.file is None or self._idle:
            reader.db.close()
        else:
            self._idle.append(reader)

    def close(self) -> None:
        """Close the idle connection."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().db.close()

    def _connect(self, uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = self._row_factory
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only now is the file opened
        except BaseException:
            db.close()
            raise
        return db


def file_id(path: str) -> FileId | None:
    """Return what tells a file from another one at the same path; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
