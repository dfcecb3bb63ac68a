# SPDX-License-Identifier: Apache-2.0
"""An entry of a log, whatever its source, and the interface of all sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from sammy_agent.base.errors import AgentError, Code

LEVELS = ("debug", "info", "warn", "error")
YIELD_EVERY = 256  # skipped entries between two checks of the clock
MAX_MESSAGE_CHARACTERS = 16 * 1024  # the rest of a message is left out, with a note


class PositionInvalid(AgentError):
    """The position is not one of this source."""

    code = Code.LOGS_POSITION_INVALID


@dataclass(frozen=True)
class Entry:
    """A log message with its time and origin.

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
class Positioned:
    """A step backwards through a source.

    :param entry: None where only entries outside the query were skipped; the reader can check the clock.
    :param position: reading from it yields this entry again, or goes on after the skipped ones.
    """

    entry: Entry | None
    position: bytes


class Tail(Protocol):
    """A source from a position on, as it grows."""

    def poll(self) -> Sequence[Entry]:
        """Return new entries in the source's order, one batch at most."""
        ...

    def filenos(self) -> Sequence[int]:
        """Return descriptors to wait on; a source without any is polled."""
        ...

    def close(self) -> None:
        """Release its resources."""
        ...


class Source(Protocol):
    """A log that can be read back from a position, and followed from one."""

    tag: int  # one byte that identifies it in a cursor
    notes: list[str]  # why it could not be read whole

    def end_position(self) -> bytes:
        """Return the position of now: `read_backwards` from it reads all there is, `tail` from it all that comes."""
        ...

    def read_backwards(self, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        """Yield the newest first.

        :param position: from there on; None from the newest.
        :param until: nothing later than this, microseconds since 1970; None for no bound.
        """
        ...

    def tail(self, position: bytes) -> Tail:
        """Return what comes after the position."""
        ...


def truncate(text: str) -> str:
    """Return a message cut to the maximum length."""
    return (
        text
        if len(text) <= MAX_MESSAGE_CHARACTERS
        else f"{text[:MAX_MESSAGE_CHARACTERS]}… (cut after {MAX_MESSAGE_CHARACTERS // 1024} KiB)"
    )


def decode(raw: bytes) -> str:
    """Return bytes of a log as a truncated text; invalid UTF-8 is replaced."""
    return truncate(raw[: 4 * MAX_MESSAGE_CHARACTERS + 4].decode("utf-8", errors="replace"))
