# SPDX-License-Identifier: Apache-2.0
"""The three metrics of a heartbeat, from /proc and the root file system; one that is not available is left out.

The wire refuses a whole heartbeat for a null among them.
"""

from __future__ import annotations

import contextlib
import os


def collect() -> dict[str, float]:
    """Return cpuLoadAvg1 (the raw load), memoryPercent and diskPercent (0 to 100, used)."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        found["cpuLoadAvg1"] = round(os.getloadavg()[0], 2)
    with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
        found["memoryPercent"] = _memory()
    with contextlib.suppress(OSError, ZeroDivisionError):
        disk = os.statvfs("/")
        # as df does: what root alone may use is no room
        used, room = disk.f_blocks - disk.f_bfree, disk.f_bavail
        found["diskPercent"] = round(100 * used / (used + room), 2)
    return found


def _memory() -> float:
    with open("/proc/meminfo", encoding="ascii") as file:
        values = {line.split(":")[0]: int(line.split()[1]) for line in file}
    return round(100 * (1 - values["MemAvailable"] / values["MemTotal"]), 2)
