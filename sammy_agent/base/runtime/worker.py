# SPDX-License-Identifier: Apache-2.0
"""A periodic task in its own thread."""

from __future__ import annotations

import abc
import logging
import threading

from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock

LOG = logging.getLogger(__name__)
# After a bug in a run: the task goes on, slowly; the traceback is in the journal.
CRASH_DELAY = 30.0


class Worker(threading.Thread, abc.ABC):
    """A task. Its `run_once` does one piece of it and says when the next is due."""

    def __init__(self, name: str, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(name=name, daemon=True)
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._busy_since: float | None = None

    @abc.abstractmethod
    def run_once(self) -> float | None:
        """Do what is due; return the seconds until the next run, None to wait until woken."""

    def wake(self) -> None:
        """Make the next run begin now, or right after the present one."""
        self._wake.set()

    def stop(self) -> None:
        """Let no further run begin; does not wait."""
        self._stopping.set()
        self._wake.set()

    def busy_seconds(self) -> float:
        """Return how long the present run has lasted, 0 between runs."""
        since = self._busy_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def run(self) -> None:
        """Run the task until stopped."""
        while not self._stopping.is_set():
            self._wake.clear()  # before the run: news during it makes another one
            self._busy_since = self._clock.monotonic()
            try:
                delay = self.run_once()
            except Exception:
                LOG.exception("%s: a bug; it runs again in %.0f s", self.name, CRASH_DELAY)
                delay = CRASH_DELAY
            self._busy_since = None
            self._clock.wait(self._wake, delay)
