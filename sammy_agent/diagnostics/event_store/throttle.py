# SPDX-License-Identifier: Apache-2.0
"""Limits how many events of one type are stored: Docker's start alone renews the connections dozens of times.

The caller gives the time, so nothing here waits. The first events of a type in a minute are stored as they are, the
rest of that minute becomes one event at its end, with their number and messages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sammy_agent.base.events.event import MAX_MESSAGE_CHARS, NewEvent, detail_text

WINDOW = 60.0
MAX_MESSAGES = 5  # different messages that a summary names


@dataclass
class _Minute:
    """The current minute of one type."""

    end: float
    seen: int = 0
    suppressed: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    first: NewEvent | None = None
    last: NewEvent | None = None


class EventThrottle:
    """Counts by type. For one thread."""

    def __init__(self) -> None:
        self._minutes: dict[str, _Minute] = {}

    def allow(self, event: NewEvent, burst: int, now: float) -> bool:
        """Return whether the event is stored as it is; otherwise it is counted for the summary."""
        minute = self._minutes.setdefault(event.type, _Minute(now + WINDOW))
        minute.seen += 1
        if minute.seen <= burst:
            return True
        minute.suppressed += 1
        if event.message in minute.messages or len(minute.messages) < MAX_MESSAGES:
            minute.messages[event.message] += 1
        minute.first, minute.last = minute.first or event, event
        return False

    def due(self, now: float) -> list[NewEvent]:
        """Return the summaries of the minutes that are over at `now`, and forget those."""
        over = [type for type, minute in self._minutes.items() if now >= minute.end]
        minutes = [self._minutes.pop(type) for type in over]
        return [_summary(minute) for minute in minutes if minute.suppressed]

    def next_due(self) -> float | None:
        """Return when the next minute with suppressed events is over."""
        return min((minute.end for minute in self._minutes.values() if minute.suppressed), default=None)


def _summary(minute: _Minute) -> NewEvent:
    assert minute.first is not None and minute.last is not None  # at least one was suppressed
    messages = dict(minute.messages.most_common())
    said = "; ".join(f"{message} ({count}x)" if count > 1 else message for message, count in messages.items())
    seconds = (minute.last.boottime_us - minute.first.boottime_us) / 1e6
    return minute.last._replace(
        message=f"{minute.suppressed} more in {seconds:.0f} s: {said}"[:MAX_MESSAGE_CHARS],
        detail=detail_text({"count": minute.suppressed, "first_at": minute.first.created_at, "said": messages}),
        duration_us=None,
    )
