# SPDX-License-Identifier: Apache-2.0
"""When something happened, by two clocks: the wall clock jumps on first boots, the boot clock does not.

Microseconds, as integers, so that events of one millisecond keep their distance. Within this boot a time is judged by
the boot clock; between boots there is only the wall clock.
"""

from __future__ import annotations

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


class Moment(NamedTuple):
    """Microseconds since the epoch, and since this boot (CLOCK_BOOTTIME, sleep included)."""

    wall: int
    boot: int

    def wall_of(self, wall: int, boot: int, *, same_boot: bool) -> int:
        """Return when a kept moment was by the clock that `self` has: a clock set right later mends older times."""
        return self.wall - (self.boot - boot) if same_boot else wall


def now() -> Moment:
    """Return the present moment."""
    return Moment(time.time_ns() // 1000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
