# SPDX-License-Identifier: Apache-2.0
"""How long records are kept: by age, by rows and by bytes, whichever comes first, applied while the agent runs.

SAM looked only at its start and only at the age, so a long-lived node's file grew without end. Here each turn gives up
a bounded number of the oldest rows and gives pages back to the disk, so that it costs a few milliseconds at most.

A table that is held so has `seq`, `created_at`, `boottime_us` and `boot_id`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sammy_agent.base.runtime.clock import Timestamp

DAY = 86_400_000_000  # microseconds
MIB = 1024 * 1024
# rows given up in one turn at the most: a clock that is wrong for a minute must not cost the history
STRIDE = 2000
# pages given back in one turn; and how few free ones are left for the next rows
PAGES, SPARE = 1000, 64


@dataclass(frozen=True)
class Retention:
    """Bounds. The file's own size is meant; beside it lies a journal of a few MiB."""

    days: float
    rows: int
    bytes: int


def trim(db: sqlite3.Connection, table: str, keep: Retention, at: Timestamp, boot_id: str) -> int:
    """Give up the oldest rows beyond the bounds, in the caller's transaction; return how many. sqlite3.Error."""
    gone = _trim_rows(db, table, keep) + _trim_aged(db, table, keep, at, boot_id)
    _give_back(db)
    return gone


def _trim_rows(db: sqlite3.Connection, table: str, keep: Retention) -> int:
    rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    over = max(rows - keep.rows, _rows_over_bytes(db, rows, keep.bytes))
    if over <= 0:
        return 0
    return db.execute(
        f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} ORDER BY seq LIMIT ?)", (min(over, STRIDE),)
    ).rowcount


def _rows_over_bytes(db: sqlite3.Connection, rows: int, most: int) -> int:
    """Return how many rows of a mean size make up what is over the bound, and a twentieth more for the next ones."""
    size, pages, free = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    used = size * (pages - free)
    return 0 if used <= most else 1 + int(rows * (used - most * 0.95) / used)


def _trim_aged(db: sqlite3.Connection, table: str, keep: Retention, at: Timestamp, boot_id: str) -> int:
    """Look at the oldest rows only; those of this boot are judged by the boot clock."""
    age = int(keep.days * DAY)
    return db.execute(
        f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} ORDER BY seq LIMIT ?) "
        "AND CASE WHEN boot_id=? THEN boottime_us < ? ELSE created_at < ? END",
        (STRIDE, boot_id, at.boot - age, at.wall - age),
    ).rowcount


def _give_back(db: sqlite3.Connection) -> None:
    """Give free pages back to the disk when they are more than the next rows will need soon."""
    pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if free > max(SPARE, pages // 8):
        for _ in range(min(free - SPARE, PAGES)):
            db.execute("PRAGMA incremental_vacuum(1)")  # one by one: Python takes but one step of such a statement
