# SPDX-License-Identifier: Apache-2.0
"""One page of several logs: merged by time, the newest first, with a cursor for the next.

Each source is read in its own order and keeps its own position, so whatever the clocks did, every entry is in exactly
one page. A page ends when it is full, when nothing older is left, or when the time for reading is up; then it may hold
few entries or none, and its cursor goes on from where reading stopped.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sammy_agent.diagnostics.logs.entry import Entry, Positioned, PositionInvalid, Source
from sammy_agent.diagnostics.logs.query import Query, QueryInvalid

SECONDS = 10.0  # for one page
VERSION = 1
EXHAUSTED = b""  # the position of a source without older entries
_FOREVER = 2**63 - 1
_HEAD = struct.Struct(">BQ")


@dataclass(frozen=True)
class Page:
    """Entries, newest first; `cursor` asks for those before them, "" where there are none."""

    entries: list[Entry]
    cursor: str = ""
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return it as it goes over the wire."""
        answer: dict[str, Any] = {
            "entries": [entry.document() for entry in self.entries],
            "nextCursor": self.cursor or None,
            "hasMore": bool(self.cursor),
        }
        return {**answer, "notes": self.notes} if self.notes else answer


class _SourceCursor:
    """A source being read backwards: its next entry, and its position."""

    def __init__(self, source: Source, steps: Iterator[Positioned], is_late: Callable[[], bool]) -> None:
        self.source = source
        self._steps, self._is_late = steps, is_late
        self.position = EXHAUSTED
        self.entry: Entry | None = None
        self.timed_out = False  # the time was over before the next entry was found

    def advance(self, *, wait: bool = True) -> None:
        """Go to the next entry; unless `wait`, give up at the first skip."""
        self.entry, self.timed_out = None, False
        try:
            for located in self._steps:
                self.entry, self.position = located.entry, located.position
                self.timed_out = located.entry is None and (not wait or self._is_late())
                if self.entry or self.timed_out:
                    return
        except OSError as error:
            self.source.notes.append(f"{error.filename or type(self.source).__name__}: {error.strerror}")
        self.position = EXHAUSTED


def read(
    sources: Sequence[Source],
    query: Query,
    *,
    start: Mapping[int, bytes] | None = None,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Page:
    """Read a page back from where the query's cursor stands.

    :param start: positions to read back from, by the sources' tags, where there is no cursor.
    :param seconds: for reading; what is left then is the next page's.
    :raises QueryInvalid: the cursor is none.
    """
    latest, positions = query.until, dict(start or {})
    try:
        if query.cursor:
            time_of_cursor, positions = unpack(query.cursor)
            latest = time_of_cursor if latest is None else min(time_of_cursor, latest)
        ends = clock() + seconds
        cursors = [
            # a cursor's time bounds a source that it does not know; a position says more than any time
            _SourceCursor(
                source,
                source.read_backwards(position, latest if position is None else query.until),
                lambda: clock() > ends,
            )
            for source in sources
            if (position := positions.get(source.tag)) != EXHAUSTED
        ]
        entries = _merged(cursors, query.limit)
    except PositionInvalid as error:
        raise QueryInvalid(["cursor is not a nextCursor of an earlier answer: ask without it"]) from error
    notes = [note for source in sources for note in source.notes]
    if not any(cursor.entry or cursor.timed_out for cursor in cursors):
        return Page(entries, notes=notes)
    if entries:
        latest = entries[-1].time
    left = {source.tag: EXHAUSTED for source in sources} | {cursor.source.tag: cursor.position for cursor in cursors}
    return Page(entries, pack(_FOREVER if latest is None else latest, left), notes)


def _merged(cursors: Sequence[_SourceCursor], limit: int) -> list[Entry]:
    """Take the newest entry of all cursors until the page is full or a cursor timed out."""
    for cursor in cursors:
        cursor.advance()
    entries: list[Entry] = []
    while len(entries) < limit and not any(cursor.timed_out for cursor in cursors):
        newest: _SourceCursor | None = None
        for cursor in cursors:
            if cursor.entry and (newest is None or newest.entry is None or cursor.entry.time > newest.entry.time):
                newest = cursor
        if newest is None or newest.entry is None:
            break
        entries.append(newest.entry)
        newest.advance(wait=len(entries) < limit)
    return entries


def pack(latest: int, positions: Mapping[int, bytes]) -> str:
    """Return the cursor of positions; `latest`, microseconds since 1970, bounds sources that it does not know."""
    parts = [_HEAD.pack(VERSION, latest)]
    parts += [bytes([tag, len(position)]) + position for tag, position in sorted(positions.items())]
    return base64.urlsafe_b64encode(b"".join(parts)).decode()


def decoded(cursor: str) -> bytes:
    """Return a page's cursor as a query has it."""
    return base64.urlsafe_b64decode(cursor)


def unpack(cursor: bytes) -> tuple[int, dict[int, bytes]]:
    """Return the time and the positions of a cursor. PositionInvalid when it is none."""
    if len(cursor) < _HEAD.size or cursor[0] != VERSION:
        raise PositionInvalid("no cursor")
    _, latest = _HEAD.unpack_from(cursor)
    positions: dict[int, bytes] = {}
    rest = cursor[_HEAD.size :]
    while rest:
        if len(rest) < 2 or len(rest) < 2 + rest[1]:
            raise PositionInvalid("no cursor")
        positions[rest[0]], rest = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
    return latest, positions
