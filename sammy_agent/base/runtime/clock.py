# SPDX-License-Identifier: Apache-2.0
"""The machine's clocks in one place, so that a test can put others in theirs: `fake_clock.FakeClock`.

The wall clock jumps on first boots, the boot clock does not. So what happened is kept by both, in microseconds as
integers, that events of one millisecond keep their distance. Within this boot a time is converted by the boot clock;
between boots there is only the wall clock.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import NamedTuple

from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import BOOT_ID


def this_boot() -> str:
    """Return the kernel's id of this boot, as cc_sammy writes it into its records."""
    return (files.read(BOOT_ID) or "unknown").strip()


def iso(seconds: float | None) -> str | None:
    """Return a time of the epoch for people and programs, UTC; None for one that no clock can show."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


class Timestamp(NamedTuple):
    """Microseconds since the epoch, and since this boot (CLOCK_BOOTTIME, sleep included)."""

    wall: int
    boot: int

    def to_wall_clock(self, wall: int, boot: int, *, same_boot: bool) -> int:
        """Convert a stored time to the current wall clock (corrects times recorded before the clock was set)."""
        return self.wall - (self.boot - boot) if same_boot else wall


def now() -> Timestamp:
    """Return the present time by both clocks."""
    return Timestamp(time.time_ns() // 1000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)


class Clock:
    """The machine's clocks, in seconds, and waiting by them. What takes one has `SYSTEM_CLOCK` as its default."""

    def monotonic(self) -> float:
        """Return the clock for intervals: it stands still while the machine sleeps."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def boottime(self) -> float:
        """Return the seconds since the boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float | None = None) -> bool:
        """Wait until the event is set, at most so long; return whether it is."""
        return event.wait(seconds)


SYSTEM_CLOCK = Clock()
