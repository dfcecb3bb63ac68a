# SPDX-License-Identifier: Apache-2.0
"""What lately happened to the network, the connections and the contact, in full: the socket's `history`.

The event store keeps the same for weeks, but makes one row of the many that Docker's start brings, and cannot be asked
when the disk is what failed. This is a ring in memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from sammy_agent.base.events.event import RecordEvent
from sammy_agent.base.events.kinds import Kind
from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.observer import Signal

MOST = 500
KEPT = ("network.", "transport.", "contact.", "firewall.", "token.", "ready.")


class RecentEvent(NamedTuple):
    """An event that was kept here, with its duration where it has one."""

    kind: Kind
    message: str
    seconds: float | None


class RecentEvents:
    """Stands between who tells events and who keeps them. Thread-safe; waits for nothing."""

    def __init__(self, keep: RecordEvent, most: int = MOST) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._ring: deque[dict[str, Any]] = deque(maxlen=most)
        self._seen = 0
        self.recorded: Signal[RecentEvent] = Signal()

    def __repr__(self) -> str:
        return f"<RecentEvents {len(self._ring)}>"

    def record(
        self, kind: Kind, message: str, *, detail: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> None:
        """Keep an event, and pass it on."""
        if kind.type.startswith(KEPT):
            now = clock.now()
            told: dict[str, Any] = {
                "at": iso(now.wall / 1e6),
                "boottime_s": round(now.boot / 1e6, 3),
                "kind": kind.type,
                "reason": message[:500],
            }
            if seconds is not None:
                told["seconds"] = round(seconds, 3)
            with self._lock:
                self._ring.append({**told, **({"detail": dict(detail)} if detail else {})})
                self._seen += 1
        self._keep(kind, message, detail=detail, seconds=seconds)
        if kind.type.startswith(KEPT):
            self.recorded.emit(RecentEvent(kind, message, seconds))

    def snapshot(self) -> dict[str, Any]:
        """Return the socket's answer: the changes, oldest first, and how many older ones are forgotten."""
        with self._lock:
            return {"changes": list(self._ring), "forgotten": self._seen - len(self._ring)}
