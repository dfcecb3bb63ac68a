# SPDX-License-Identifier: Apache-2.0
"""How long records are kept: by age, by rows and by bytes, whichever comes first, applied while the agent runs.

SAM looked only at its start and only at the age, so a long-lived node's file grew without end. Here each trim removes a
bounded number of the oldest rows and returns free pages to the disk, so that it costs a few milliseconds at most.

A table that is trimmed has `seq`, `created_at`, `boottime_us` and `boot_id`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sammy_agent.base.runtime.clock import Timestamp

DAY = 86_400_000_000  # microseconds
MIB = 1024 * 1024
# a clock that is wrong for a minute must not cost the history
MAX_ROWS_PER_TRIM = 2000
# pages returned to the disk in one trim, and free ones that are kept for the next rows
MAX_PAGES_PER_TRIM, RESERVED_PAGES = 1000, 64


@dataclass(frozen=True)
class Retention:
    """Bounds; `bytes` of the file itself, to which its write-ahead log of a few MiB comes."""

    days: float
    rows: int
    bytes: int


def trim(db: sqlite3.Connection, table: str, keep: Retention, at: Timestamp, boot_id: str) -> int:
    """Remove the oldest rows beyond the bounds, in the caller's transaction; return how many. sqlite3.Error."""
    removed = _trim_rows(db, table, keep) + _trim_aged(db, table, keep, at, boot_id)
    _incremental_vacuum(db)
    return removed


def _trim_rows(db: sqlite3.Connection, table: str, keep: Retention) -> int:
    rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    over = max(rows - keep.rows, _rows_over_bytes(db, rows, keep.bytes))
    if over <= 0:
        return 0
    return db.execute(
        f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} ORDER BY seq LIMIT ?)",
        (min(over, MAX_ROWS_PER_TRIM),),
    ).rowcount


def _rows_over_bytes(db: sqlite3.Connection, rows: int, most: int) -> int:
    """Return how many rows of a mean size make up what is over the bound, and a twentieth more for the next ones."""
    size, pages, free = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    used = size * (pages - free)
    return 0 if used <= most else 1 + int(rows * (used - most * 0.95) / used)


def _trim_aged(db: sqlite3.Connection, table: str, keep: Retention, at: Timestamp, boot_id: str) -> int:
    """Look at the oldest rows only; those of this boot are compared by the boot clock."""
    age = int(keep.days * DAY)
    return db.execute(
        f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} ORDER BY seq LIMIT ?) "
        "AND CASE WHEN boot_id=? THEN boottime_us < ? ELSE created_at < ? END",
        (MAX_ROWS_PER_TRIM, boot_id, at.boot - age, at.wall - age),
    ).rowcount


def _incremental_vacuum(db: sqlite3.Connection) -> None:
    """Return free pages to the disk when they are more than the next rows will need soon."""
    pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if free > max(RESERVED_PAGES, pages // 8):
        for _ in range(min(free - RESERVED_PAGES, MAX_PAGES_PER_TRIM)):
            db.execute("PRAGMA incremental_vacuum(1)")  # one by one: Python takes but one step of such a statement
