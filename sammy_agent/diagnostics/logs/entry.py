# SPDX-License-Identifier: Apache-2.0
"""One entry of a log, whatever it was read from, and what every source must be able to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from sammy_agent.base.errors import AgentError, Code

LEVELS = ("debug", "info", "warn", "error")
MARK_EVERY = 256  # entries passed over, between two looks at the clock
LONGEST = 16 * 1024  # characters of a message; the rest is left out, and said


class PositionInvalid(AgentError):
    """What should be a position in a source is none."""

    code = Code.LOGS_POSITION_INVALID


@dataclass(frozen=True)
class Entry:
    """What was said, when and by whom.

    :param time: microseconds since 1970.
    """

    time: int
    level: str
    source: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as it goes over the wire."""
        stamp = datetime.fromtimestamp(self.time // 1_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        entry: dict[str, Any] = {
            "timestamp": f"{stamp}.{self.time % 1_000_000:06d}Z",
            "level": self.level,
            "source": self.source,
            "message": self.message,
        }
        return {**entry, "metadata": self.metadata} if self.metadata else entry


@dataclass(frozen=True)
class Located:
    """Something on the way back through a source.

    :param entry: None where what was passed does not answer the question; it lets the reader look at the clock.
    :param position: from there the entry would be read again, or reading goes on where there is none.
    """

    entry: Entry | None
    position: bytes


class Live(Protocol):
    """A source from a position on, as it grows."""

    def poll(self) -> Sequence[Entry]:
        """Return what is new, in the source's order and not more than a batch; nothing when there is nothing."""
        ...

    def filenos(self) -> Sequence[int]:
        """Return what to wait on for news; sources without are polled."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Source(Protocol):
    """A log that can be read back from a position, and followed from one."""

    tag: int  # one byte, by which a cursor knows it
    notes: list[str]  # what kept it from being read whole, in words

    def top(self) -> bytes:
        """Return the position of now: `backwards` from it reads all there is, `live` from it all that comes."""
        ...

    def backwards(self, position: bytes | None, until: int | None) -> Iterator[Located]:
        """Yield the newest first.

        :param position: from there on; None from the newest.
        :param until: nothing later than this, microseconds since 1970; None for no bound.
        """
        ...

    def live(self, position: bytes) -> Live:
        """Return what comes after the position."""
        ...


def bounded(text: str) -> str:
    """Return a message that is no longer than it may be."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (cut after {LONGEST // 1024} KiB)"


def of_bytes(raw: bytes) -> str:
    """Return bytes of a log as a bounded text; what is no UTF-8 is replaced."""
    return bounded(raw[: 4 * LONGEST + 4].decode("utf-8", errors="replace"))
