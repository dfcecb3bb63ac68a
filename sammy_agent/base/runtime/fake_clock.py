# SPDX-License-Identifier: Apache-2.0
"""A clock for tests, which runs when it is told to. No product code imports it."""

from __future__ import annotations

import threading

from sammy_agent.base.runtime.clock import Clock

POLL_SECONDS = 0.002


class FakeClock(Clock):
    """All three clocks, set by hand and safe between threads.

    :param auto_advance: waiting lets the time pass at once. Without it a waiting thread stays where it is until the
        event is set or another thread advances the clock far enough: for tests with real threads.
    """

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_800_000_000.0, *, auto_advance: bool = True) -> None:
        self._lock = threading.Lock()
        self._monotonic, self._wall, self._boottime = monotonic, wall, monotonic
        self._auto_advance = auto_advance
        # the seconds of every sleep and wait, in their order; None for a wait without an end
        self.waits: list[float | None] = []

    def __repr__(self) -> str:
        return f"<FakeClock {self._monotonic}>"

    def advance(self, seconds: float) -> None:
        """Let all clocks run on."""
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds
            self._boottime += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock alone, as NTP does on a first boot."""
        with self._lock:
            self._wall = seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the monotonic clock stands still."""
        with self._lock:
            self._wall += seconds
            self._boottime += seconds

    def monotonic(self) -> float:
        """Return the clock for intervals."""
        with self._lock:
            return self._monotonic

    def wall(self) -> float:
        """Return the seconds since the epoch."""
        with self._lock:
            return self._wall

    def boottime(self) -> float:
        """Return the seconds since the boot."""
        with self._lock:
            return self._boottime

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, seconds: float | None = None) -> bool:
        """Wait by this clock; an event that is set costs no time."""
        self.waits.append(seconds)
        if seconds is None:
            return event.wait()
        if self._auto_advance:
            if not event.is_set():
                self.advance(seconds)
            return event.is_set()
        end = self.monotonic() + seconds
        while not event.wait(POLL_SECONDS) and self.monotonic() < end:
            pass
        return event.is_set()
