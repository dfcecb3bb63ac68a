# SPDX-License-Identifier: Apache-2.0
"""Which of many equal events get a row of their own: Docker's start alone renews the connections dozens of times.

Times are given, so nothing here waits. The first of a kind in a minute are kept as they are, the rest of that minute
is one event at its end, with their number and what they said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sammy_agent.base.events.event import LONGEST_MESSAGE, NewEvent, detail_text

WINDOW = 60.0
MOST_SAID = 5  # different messages that a summary names


@dataclass
class _Minute:
    """One kind's present minute."""

    end: float
    seen: int = 0
    untold: int = 0
    said: Counter[str] = field(default_factory=Counter)
    first: NewEvent | None = None
    last: NewEvent | None = None


class Throttle:
    """Counts by type. Of one thread."""

    def __init__(self) -> None:
        self._minutes: dict[str, _Minute] = {}

    def passes(self, event: NewEvent, burst: int, now: float) -> bool:
        """Tell whether the event is kept as it is; else it is counted for the summary."""
        minute = self._minutes.setdefault(event.type, _Minute(now + WINDOW))
        minute.seen += 1
        if minute.seen <= burst:
            return True
        minute.untold += 1
        if event.message in minute.said or len(minute.said) < MOST_SAID:
            minute.said[event.message] += 1
        minute.first, minute.last = minute.first or event, event
        return False

    def due(self, now: float) -> list[NewEvent]:
        """Return the summaries of the minutes that are over at `now`, and forget those."""
        over = [type for type, minute in self._minutes.items() if now >= minute.end]
        minutes = [self._minutes.pop(type) for type in over]
        return [_summary(minute) for minute in minutes if minute.untold]

    def next_due(self) -> float | None:
        """Return when the next minute with something untold is over."""
        return min((minute.end for minute in self._minutes.values() if minute.untold), default=None)


def _summary(minute: _Minute) -> NewEvent:
    assert minute.first is not None and minute.last is not None  # something was untold
    said = "; ".join(f"{words} ({count}x)" if count > 1 else words for words, count in minute.said.most_common())
    seconds = (minute.last.boottime_us - minute.first.boottime_us) / 1e6
    return minute.last._replace(
        message=f"{minute.untold} more in {seconds:.0f} s: {said}"[:LONGEST_MESSAGE],
        detail=detail_text({"count": minute.untold, "first_at": minute.first.created_at, "said": dict(minute.said)}),
        duration_us=None,
    )
