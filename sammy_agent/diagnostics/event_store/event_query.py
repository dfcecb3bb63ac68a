# SPDX-License-Identifier: Apache-2.0
"""A query for events as SQL, and its rows as dictionaries."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.events.kinds import LEVELS
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.base.storage import time_range

HIGHEST = "\U0010ffff"  # sorts behind every character


@dataclass(frozen=True)
class EventQuery:
    """Which events. Without `after_seq` the newest of them, newest first; with it the oldest after it, oldest first."""

    limit: int = 100
    before_seq: int | None = None
    after_seq: int | None = None
    level: str | None = None  # this one and more severe ones
    type_prefix: str = ""  # "contact." for all of that family
    run_id: str = ""
    since: Timestamp | None = None  # events of `boot_id` are compared by the boot clock, all others by the wall clock
    until: Timestamp | None = None
    boot_id: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition and its values. ValueError: there is no such level."""
        conditions = time_range.conditions(self.since, self.until, self.boot_id)
        if self.before_seq is not None:
            conditions.append(("seq < ?", (self.before_seq,)))
        if self.after_seq is not None:
            conditions.append(("seq > ?", (self.after_seq,)))
        if self.level is not None:
            if self.level not in LEVELS:
                raise ValueError(f"invalid level {self.level!r}; choose from {', '.join(LEVELS)}")
            levels = LEVELS[LEVELS.index(self.level) :]
            conditions.append((f"level IN ({', '.join('?' * len(levels))})", levels))
        if self.type_prefix:  # a range, not LIKE: no characters of patterns, and the index serves it
            conditions.append(("type >= ? AND type < ?", (self.type_prefix, self.type_prefix + HIGHEST)))
        if self.run_id:
            conditions.append(("run_id = ?", (self.run_id,)))
        return time_range.join_and(conditions)


NEWEST = EventQuery()


def select(db: sqlite3.Connection, query: EventQuery) -> list[dict[str, Any]]:
    """Return the events: the table's columns, `id` (16 hex digits) and `detail` as an object or None. sqlite3.Error."""
    condition, values = query.where()
    order = "DESC" if query.after_seq is None else "ASC"
    kept = db.execute("SELECT id FROM store").fetchone()
    store = 0 if kept is None else kept[0]
    cursor = db.execute(f"SELECT * FROM events WHERE {condition} ORDER BY seq {order} LIMIT ?", (*values, query.limit))
    names = [column[0] for column in cursor.description]
    return [_to_dict(store, dict(zip(names, row, strict=True))) for row in cursor]


def _to_dict(store: int, row: dict[str, Any]) -> dict[str, Any]:
    detail = row.pop("detail")
    del row["key"]
    return {"id": f"{store:03x}{row['seq']:013x}", **row, "detail": None if detail is None else json.loads(detail)}
