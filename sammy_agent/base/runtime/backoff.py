# SPDX-License-Identifier: Apache-2.0
"""Growing delays after failures, with jitter so that a fleet that lost its control plane does not come back in step."""

from __future__ import annotations

import random

JITTER = 0.25
MAX_DOUBLINGS = 40  # beyond any limit that is used; a float would overflow at 1024


def exponential(first: float, failures: int, longest: float) -> float:
    """Return `first` doubled once per failure, at most `longest`."""
    return float(min(longest, first * 2.0 ** min(failures, MAX_DOUBLINGS)))


def jittered(seconds: float, share: float = JITTER) -> float:
    """Return a delay that lies evenly within `share` of `seconds` on both sides."""
    return seconds * random.uniform(1 - share, 1 + share)


def full_jitter(limit: float) -> float:
    """Return a delay drawn evenly from 0 to `limit`: it spreads a fleet best, where a delay of 0 does no harm."""
    return limit * random.random()


class Backoff:
    """The delays of one task: doubled with each failure up to `longest`, each with 25 % of jitter."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Backoff after {self._failures} failures>"

    def next_delay(self) -> float:
        """Return the seconds to wait after one more failure."""
        delay = jittered(exponential(self._first, self._failures, self._longest))
        self._failures += 1
        return delay

    def reset(self) -> None:
        """Start over, after a success."""
        self._failures = 0
