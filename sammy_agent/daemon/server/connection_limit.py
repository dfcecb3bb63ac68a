# SPDX-License-Identifier: Apache-2.0
"""How many connections there may be, which one goes when there is no room, and how often strangers are told of.

Decisions without I/O.

A bound alone would let a hundred idle strangers shut the control plane out. So the one that has waited longest without
proving whose it is makes room; those on which the control plane's own request is being answered stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

MOST = 128
Connection = TypeVar("Connection")
TELL_EVERY = 10.0  # seconds


class Connections(Generic[Connection]):
    """The open ones. Of one thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: dict[Connection, None] = {}  # in the order they began to wait
        self._proved: set[Connection] = set()
        self.turned_away = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._proved)

    def came(self, new: Connection) -> Connection | None:
        """Take a connection; return the one that must go, which may be the new one, None when there is room."""
        goes: Connection | None = None
        if len(self) >= self._most:
            self.turned_away += 1
            goes = next(iter(self._waiting), new)
            self._waiting.pop(goes, None)
        if goes is not new:
            self._waiting[new] = None
        return goes

    def waits(self, one: Connection) -> None:
        """A request is waited for."""
        if one in self._proved:
            self._proved.discard(one)
            self._waiting[one] = None

    def proved(self, one: Connection) -> None:
        """The control plane's own request came on it."""
        if one in self._waiting:
            del self._waiting[one]
            self._proved.add(one)

    def went(self, one: Connection) -> None:
        """It is closed."""
        self._waiting.pop(one, None)
        self._proved.discard(one)


class Sparing:
    """Says whether the log is to hear of a refusal: one in ten seconds, with the number of those before it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next, self._untold = 0.0, 0

    def untold(self) -> int | None:
        """Return how many went untold since the last one told, None when this one goes untold as well."""
        now = self._clock()
        if now < self._next:
            self._untold += 1
            return None
        self._next, untold, self._untold = now + TELL_EVERY, self._untold, 0
        return untold
