# SPDX-License-Identifier: Apache-2.0
"""A heartbeat's three metrics, from /proc and the root file system; one that cannot be read is left out.

The wire refuses a whole heartbeat for a null among them.
"""

from __future__ import annotations

import contextlib
import os

from sammy_agent.base.runtime import procfs


def collect() -> dict[str, float]:
    """Return cpuLoadAvg1 (the raw load), memoryPercent and diskPercent (0 to 100, used)."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        found["cpuLoadAvg1"] = round(os.getloadavg()[0], 2)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        found["memoryPercent"] = procfs.memory().main.used_percent
    with contextlib.suppress(OSError, ZeroDivisionError):
        found["diskPercent"] = procfs.file_system("/").space.used_percent
    return found
