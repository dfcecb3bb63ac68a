# SPDX-License-Identifier: Apache-2.0
"""Tests that measure: each waits for a quiet machine, and measures again where it was too busy after all.

What is found wrong fails at once; only what the machine itself was too slow for is tried again (TooBusy), or, for a
test whose every figure hangs on being woken in time, what failed while there was more to run than cores.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

TRIES = 3
PATIENCE = 60.0  # seconds that one try waits for a quiet machine; then it measures all the same
QUIET = 0.3  # of all cores' time

Words = ParamSpec("Words")


class TooBusy(AssertionError):
    """A figure was missed that says how much time the machine gave, not whether the code is right."""


def busy_share(seconds: float = 1.0, read: Callable[[], str] | None = None) -> float:
    """Return which share of all cores' time is in use, measured over so many seconds; ours is nothing meanwhile."""
    read = read or Path("/proc/stat").read_text

    def ticks() -> tuple[int, int]:
        numbers = [int(word) for word in read().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # idle, and idle with I/O under way

    whole, idle = ticks()
    time.sleep(seconds)
    whole_then, idle_then = ticks()
    return 1.0 - (idle_then - idle) / max(1, whole_then - whole)


def wait(patience: float = PATIENCE, share: Callable[[], float] = busy_share) -> float:
    """Wait until the machine is quiet, for so long at most; return the share that was in use last."""
    deadline = time.monotonic() + patience
    while True:
        found = share()
        if found <= QUIET or time.monotonic() >= deadline:
            return found


def crowded() -> bool:
    """Tell whether there was more to run than cores in the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def measured(test: Callable[Words, None]) -> Callable[Words, None]:
    """Have a test wait for a quiet machine, and tried again when it says TooBusy."""
    return _again(test, lambda error: isinstance(error, TooBusy), wait)


def timed(test: Callable[Words, None]) -> Callable[Words, None]:
    """Have a test tried again when it failed while the machine was crowded; once on any other."""
    return _again(test, lambda error: crowded(), lambda: None)


def _again(
    test: Callable[Words, None], excused: Callable[[AssertionError], bool], before: Callable[[], object]
) -> Callable[Words, None]:
    @functools.wraps(test)
    def wrapped(*args: Words.args, **kwargs: Words.kwargs) -> None:
        for left in reversed(range(TRIES)):
            before()
            try:
                return test(*args, **kwargs)
            except AssertionError as error:
                if not left or not excused(error):
                    raise
        raise AssertionError("not reached: the last try returns or raises")

    return wrapped
