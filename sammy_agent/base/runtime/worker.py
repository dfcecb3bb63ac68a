# SPDX-License-Identifier: Apache-2.0
"""One thread a duty: it takes turns, sleeps between them, and can be woken; and how long to sleep after a failure."""

from __future__ import annotations

import abc
import logging
import random
import threading
import time

LOG = logging.getLogger(__name__)
# After a bug in a turn: the duty goes on, slowly; the traceback is in the journal.
AFTER_A_BUG = 30.0


class Worker(threading.Thread, abc.ABC):
    """A duty. Its `turn` does one piece of it and says when the next is due."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._busy_since: float | None = None

    @abc.abstractmethod
    def turn(self) -> float | None:
        """Do what is due; return the seconds until the next turn, None to wait until woken."""

    def wake(self) -> None:
        """Make the next turn begin now, or right after the one that runs."""
        self._wake.set()

    def stop(self) -> None:
        """Let no further turn begin."""
        self._stopping.set()
        self._wake.set()

    def busy_seconds(self) -> float:
        """Return how long the present turn has been running, 0 between turns."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def run(self) -> None:
        """Take turns until stopped."""
        while not self._stopping.is_set():
            self._wake.clear()  # before the turn: news during it makes another one
            self._busy_since = time.monotonic()
            try:
                delay = self.turn()
            except Exception:
                LOG.exception("%s: a bug; the next turn is in %.0f s", self.name, AFTER_A_BUG)
                delay = AFTER_A_BUG
            self._busy_since = None
            self._wake.wait(delay)


class Backoff:
    """Growing pauses after failures, with jitter so that a fleet does not come back in step."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def pause(self) -> float:
        """Return the seconds to wait after one more failure: 75 to 125 % of the doubled pause."""
        now = min(self._next, self._longest)
        self._next = min(self._next * 2, self._longest)
        return now * random.uniform(0.75, 1.25)

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next = self._first
