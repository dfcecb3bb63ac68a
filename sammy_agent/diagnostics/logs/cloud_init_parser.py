# SPDX-License-Identifier: Apache-2.0
"""Tells cloud-init's entries apart: which lines are one, when it was, and how bad. Pure, from bytes to chunks.

In cloud-init.log an entry begins with a time (UTC in all versions); what follows without one belongs to it. The output
of scripts has times only where a stage begins or cloud-init itself speaks: each line has the time of the last one
before it, and a traceback is one entry.
"""

from __future__ import annotations

import calendar
import io
import re
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

BLOCK = 64 * 1024  # bytes; an entry larger than this comes in pieces
LONGEST_ENTRY = BLOCK // 2
STAMPED = re.compile(rb"(?:FALLBACK: )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) - [^\[\n]*\[([A-Z]+)\]: ", re.ASCII)
STAGE = re.compile(rb"Cloud-init v\. [^\n]* (?:at|finished at) (\w{3}, \d\d? \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4})")
LEVELS = {"DEBUG": "debug", "TRACE": "debug", "WARNING": "warn", "DEPRECATED": "warn", "ERROR": "error",
          "CRITICAL": "error"}  # fmt: skip
TRACEBACK = b"Traceback (most recent call last):"
APT = {b"E: ": "error", b"W: ": "warn"}


@dataclass(frozen=True)
class Anchor:
    """A line that tells its time, microseconds since 1970, and its level."""

    time: int
    level: str


@dataclass(frozen=True)
class Chunk:
    """One entry: its bytes, where they stand, when it was and how bad."""

    start: int
    end: int
    text: bytes
    time: int
    level: str


def anchor_of(line: bytes) -> Anchor | None:
    """Return what a line tells of its time, None where it tells nothing."""
    try:
        if found := STAMPED.match(line):
            seconds = calendar.timegm(clock.strptime(found[1].decode(), "%Y-%m-%d %H:%M:%S"))
            return Anchor(seconds * 1_000_000 + int(found[2]) * 1000, LEVELS.get(found[3].decode(), "info"))
        if (found := STAGE.match(line)) and (date := parsedate_tz(found[1].decode())):
            return Anchor(int(mktime_tz(date)) * 1_000_000, "info")
    except (ValueError, OverflowError):  # the thirtieth of February
        pass
    return None


def anchor_before(read: Callable[[int, int], bytes], offset: int) -> tuple[int, Anchor] | None:
    """Return the last one before an offset and where its line ends, None where there is none.

    :param read: returns the bytes between two offsets.
    """
    end = offset
    while end > 0:
        start = max(0, end - BLOCK)
        first, *others = read(start, end).split(b"\n")
        at = end
        for line in reversed(others if start else [first, *others]):
            if found := anchor_of(line):
                return at, found
            at -= len(line) + 1
        # a line across the blocks is read whole with the block before; one longer than a block tells no time
        end = start + len(first) if start and 0 < len(first) < end - start else start
    return None


class Grouper:
    """Makes entries of whole lines as they come.

    :param at: offset of the first line.
    :param anchor: the last one before it.
    :param time: microseconds since 1970, for lines with no anchor before them.
    """

    def __init__(self, *, line_based: bool, at: int = 0, anchor: Anchor | None = None, time: int = 0) -> None:
        self._of_lines, self._at = line_based, at
        self._anchor = anchor or Anchor(time, "info")
        self._start, self._text = at, b""
        self._in_traceback = False

    def take(self, data: bytes) -> list[Chunk]:
        """Take whole lines; return the entries that are complete with them."""
        chunks: list[Chunk] = []
        for line in io.BytesIO(data):
            anchor = anchor_of(line)
            if self._begins(line, anchor):
                chunks += self.rest()
            if anchor is not None:
                self._anchor = anchor
            self._text += line
            self._at += len(line)
            if self._ends(line):
                chunks += self.rest()
        return chunks

    def rest(self) -> list[Chunk]:
        """Return what is left as the last entry."""
        text, start, level = self._text, self._start, self._anchor.level
        self._text, self._start = b"", self._at
        was_traceback, self._in_traceback = self._in_traceback, False
        if self._of_lines:
            level = "error" if was_traceback else _level_of_line(text)
        stripped = text.rstrip(b"\r\n")
        return [Chunk(start, self._at, stripped, self._anchor.time, level)] if stripped else []

    def _begins(self, line: bytes, anchor: Anchor | None) -> bool:
        """Tell whether an entry begins with this line."""
        if len(self._text) > LONGEST_ENTRY or anchor is not None:
            return True
        return self._of_lines and not self._in_traceback

    def _ends(self, line: bytes) -> bool:
        """Tell whether the entry ends with this line, whatever comes."""
        if not self._of_lines:
            return False
        if line.startswith(TRACEBACK):
            self._in_traceback = True
            return False
        return not (self._in_traceback and line[:1].isspace())


def _level_of_line(line: bytes) -> str:
    anchor = anchor_of(line)
    return anchor.level if anchor else APT.get(line[:3], "info")
