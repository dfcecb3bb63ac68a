# SPDX-License-Identifier: Apache-2.0
"""When and how regularly the control plane connects to this node: what tells a lock-out from a quiet day.

The management server records each authenticated request of the control plane. Other requests do not count: that a
stranger gets through says nothing about the control plane. The firewall watchdog reads the statistics.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.runtime.clock import iso

SAME_VISIT_SECONDS = 1.0  # requests closer than this are one visit: a page or a poll makes several at once
MAX_VISITS = 32  # remembered ones


@dataclass(frozen=True)
class ContactStats:
    """The control plane's visits: their number, when the last was, the longest silence between the latest ones.

    Times are seconds of the monotonic clock; `visits` counts from the agent's start, silences are of the last 32.
    """

    visits: int = 0
    last: float | None = None
    longest_silence: float = 0.0


class InboundContacts:
    """Thread-safe. `record` costs a lock and may be called for every request."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=MAX_VISITS)  # when each of the last visits began
        self._visits = self._requests = 0
        self._last: float | None = None
        self._last_epoch: float | None = None
        self._peer = ""

    def record(self, peer: str) -> None:
        """Record an authenticated request of the control plane.

        :param peer: the address it came from, for people.
        """
        with self._lock:
            now = self._clock()
            if self._last is None or now - self._last >= SAME_VISIT_SECONDS:
                self._begun.append(now)
                self._visits += 1
            self._requests += 1
            self._last, self._last_epoch, self._peer = now, time.time(), peer

    def stats(self) -> ContactStats:
        """Return how regularly it connects."""
        with self._lock:
            begun = list(self._begun)
            silences = [after - before for before, after in itertools.pairwise(begun)]
            return ContactStats(self._visits, self._last, max(silences, default=0.0))

    def snapshot(self) -> dict[str, Any]:
        """Return the `inbound` part of the socket's status."""
        with self._lock:
            age = None if self._last is None else round(self._clock() - self._last, 1)
            return {
                "requests": self._requests,
                "visits": self._visits,
                "last": iso(self._last_epoch),
                "last_age_s": age,
                "last_peer": self._peer or None,
            }
