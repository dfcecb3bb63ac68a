# SPDX-License-Identifier: Apache-2.0
"""What may happen a thousand times is logged once per interval, with the number of messages that were left out."""

from __future__ import annotations

import logging
import threading

from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock

MAX_KEYS = 100  # of one throttle: some are made from what a stranger sends


class LogThrottle:
    """Counts by key; thread-safe.

    suppressed = throttle.allow(reason)
    if suppressed is not None:
        LOG.warning("connection refused: %s%s", reason, also_suppressed(suppressed))
    """

    def __init__(self, interval: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._interval, self._clock = interval, clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}  # when it was logged last, and how often not since then

    def allow(self, key: str = "") -> int | None:
        """Return how many messages of this key were suppressed since the last one; None: this one is as well."""
        now = self._clock.monotonic()
        with self._lock:
            last = self._last.get(key)
            if last is not None and now - last[0] < self._interval:
                self._last[key] = (last[0], last[1] + 1)
                return None
            if last is None and len(self._last) >= MAX_KEYS:
                self._last.clear()
            self._last[key] = (now, 0)
            return 0 if last is None else last[1]

    def reset(self, key: str = "") -> None:
        """Let the next message pass, because what the last one spoke of is over."""
        with self._lock:
            self._last.pop(key, None)


def also_suppressed(count: int) -> str:
    """Return what a message ends with that stands for `count` more."""
    return f" ({count} similar messages suppressed)" if count else ""


class ThrottleFilter(logging.Filter):
    """For the logger of a library: equal messages, whatever they are filled with, are logged once per interval.

    Warnings count apart from errors, and errors with a traceback always pass: they are bugs.
    """

    def __init__(self, interval: float, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__()
        self._throttle = LogThrottle(interval, clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide on a message, and let one that passes say how many did not."""
        if record.exc_info and record.levelno >= logging.ERROR:
            return True
        suppressed = self._throttle.allow(f"{record.levelname} {record.msg}")
        if suppressed:
            record.msg = f"{record.getMessage()}{also_suppressed(suppressed)}"
            record.args = ()
        return suppressed is not None
