# SPDX-License-Identifier: Apache-2.0
"""Dumps a database of the agent as JSON lines, consistent while others write.

Not the file itself: its free pages keep what was deleted, and a secret that lies across two pages is found by no
search. One read transaction is a snapshot; in WAL it hinders no writer, and nothing is copied.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

SQLITE_BUSY_TIMEOUT = 5.0
MAX_VALUE_CHARACTERS = 64 * 1024  # characters of one column


def lines(
    path: str, private: Sequence[str], limit: int, seconds: float, note: Callable[[str], None]
) -> Iterator[bytes]:
    """Yield one JSON line per row, table by table, the newest rows first.

    :param private: columns of which only the size is shown.
    :param limit: bytes in all, shared evenly by the tables.
    :param note: called with what is not whole.
    """
    until = time.monotonic() + seconds
    try:
        with contextlib.closing(_open(path)) as db:
            db.execute("BEGIN")  # from the first read on, all are of one moment
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
            tables = [table for table in tables if not table.startswith("sqlite_")]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            yield _line({"schema": version, "tables": {table: _count(db, table, until) for table in tables}})
            for table in tables:
                for line in _table(db, table, private, room=limit // len(tables), until=until):
                    if line is None:
                        note(f"older rows of {table} are left out")
                    else:
                        yield line
    except sqlite3.Error as error:
        note(f"{path}: {error}")


def _open(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=SQLITE_BUSY_TIMEOUT, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
    db.execute("PRAGMA cache_size=-512")
    return db


def _count(db: sqlite3.Connection, table: str, until: float) -> int | None:
    """Return the number of rows, None when counting takes too long."""
    limit = min(until, time.monotonic() + 1.0)
    db.set_progress_handler(lambda: int(time.monotonic() > limit), 10_000)
    try:
        return int(db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
    except sqlite3.OperationalError:
        return None
    finally:
        db.set_progress_handler(None, 0)


def _table(
    db: sqlite3.Connection, table: str, private: Sequence[str], *, room: int, until: float
) -> Iterator[bytes | None]:
    """Yield a table's rows, the newest first, and None when older ones have no room or no time is left."""
    try:
        rows = db.execute(f'SELECT * FROM "{table}" ORDER BY rowid DESC')
    except sqlite3.OperationalError:  # a table without row ids
        rows = db.execute(f'SELECT * FROM "{table}"')
    for row in rows:
        line = _line({"table": table, **{name: _shown(name, row[name], private) for name in row.keys()}})  # noqa: SIM118
        room -= len(line)
        if room < 0 or time.monotonic() > until:
            yield None
            return
        yield line


def _shown(name: str, value: Any, private: Sequence[str]) -> Any:
    if isinstance(value, (bytes, str)) and name in private:
        return f"({len(value)} {'bytes' if isinstance(value, bytes) else 'characters'}, left out)"
    if isinstance(value, bytes):
        return value[:MAX_VALUE_CHARACTERS].hex()
    return value[:MAX_VALUE_CHARACTERS] if isinstance(value, str) else value


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"
