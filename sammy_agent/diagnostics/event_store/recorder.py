# SPDX-License-Identifier: Apache-2.0
"""How every part of the agent records what happened: one call that never waits for the disk and never raises.

Events wait in memory, within bounds, for one thread that writes them; what cannot be kept, for a full disk or for
want of room, is counted, and the count is an event as soon as one can be kept again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from sammy_agent.base.errors import AgentError
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import MAX_MESSAGE_CHARS, NewEvent, clean, detail_text
from sammy_agent.base.events.kinds import Kind
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock, Timestamp
from sammy_agent.base.runtime.clock import now as timestamp_now
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.throttle import EventThrottle

LOG = logging.getLogger(__name__)
# Events in memory; the last quarter is reserved for warnings and errors.
MAX_PENDING, MAX_PENDING_INFO = 1000, 750
MAX_INCIDENTS = 20
# Seconds after which the bounds by age are applied although nothing is written.
TRIM_INTERVAL = 3600.0
STOP_TIMEOUT = 2.0


class Recorder(Worker):
    """Takes events from any thread; writes them from its own, once it is started."""

    def __init__(self, store: EventStore, boot_id: str, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__("recorder", clock)
        self._store, self._boot_id = store, boot_id
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Kind, NewEvent]] = deque()
        self._unwritten: list[NewEvent] = []
        self._throttle = EventThrottle()
        self._lost: Counter[str] = Counter()
        self._backoff = Backoff(first=1.0, longest=10.0)
        self._next_trim = 0.0
        # what keeps events from the disk now, "" when nothing does; and how many never reached it since the start
        self.problem = ""
        self.lost = 0
        # what must still be reported to the control plane, and the news that there is more of it
        self.incidents: deque[NewEvent] = deque(maxlen=MAX_INCIDENTS)
        self.incident_recorded: Signal[None] = Signal()

    def record(
        self,
        kind: Kind,
        message: str,
        *,
        detail: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        at: Timestamp | None = None,
    ) -> None:
        """Record an event; returns at once, whatever the disk does. `seconds`: the duration of what it is about."""
        try:
            wall, boot = at or timestamp_now()
            event = NewEvent(
                wall,
                boot,
                self._boot_id,
                kind.level,
                kind.type,
                clean(" ".join(message.split())[:MAX_MESSAGE_CHARS]),
                duration_us=None if seconds is None else round(seconds * 1e6),
                detail=detail_text(detail),
            )
            with self._lock:
                room = MAX_PENDING if kind.level in ("warn", "error") else MAX_PENDING_INFO
                if len(self._waiting) + len(self._unwritten) < room:
                    self._waiting.append((kind, event))
                else:
                    self._count_lost(event)
            self.wake()
        except Exception:
            LOG.exception("a bug: an event (%s) could not be recorded", kind)

    def run_once(self) -> float | None:
        """Write what waits; try again later what the disk does not take."""
        now = self._clock.monotonic()
        self._drain_queue(now)
        try:
            self._write(now)
        except (sqlite3.Error, OSError, AgentError) as error:
            if not self.problem:
                LOG.warning("events cannot be stored: %s", error)
            self.problem = str(error)
            return self._backoff.next_delay()
        except Exception:
            with self._lock:  # whatever the cause, these must not block all later ones
                for event in self._unwritten:
                    self._count_lost(event)
                self._unwritten = []
            raise
        self.problem = ""
        self._backoff.reset()
        due = self._throttle.next_due()
        return max(0.0, min(self._next_trim, self._next_trim if due is None else due) - self._clock.monotonic())

    def run(self) -> None:
        """Write until stopped, then what is left."""
        super().run()
        self._drain_queue(float("inf"))
        try:
            self._write(self._clock.monotonic())
        except (sqlite3.Error, OSError, AgentError) as error:
            LOG.warning("the last events cannot be stored: %s", error)

    def close(self) -> None:
        """Stop; wait for the last events to be written, but not for a disk that hangs."""
        self.stop()
        if self.is_alive():
            self.join(STOP_TIMEOUT)

    def _drain_queue(self, now: float) -> None:
        """Move pending events to those to be written; many of one type become one."""
        while True:
            with self._lock:
                if not self._waiting:
                    break
                kind, event = self._waiting.popleft()
                allowed = self._throttle.allow(event, kind.burst, self._clock.monotonic())
                if allowed:
                    self._unwritten.append(event)
            if allowed and kind.incident:
                self.incidents.append(event)
                self.incident_recorded.emit(None)
        self._unwritten += self._throttle.due(now)

    def _write(self, now: float) -> None:
        if self._unwritten:
            self._store.add(self._unwritten)
            with self._lock:
                self._unwritten = []
        self._record_lost()
        if now >= self._next_trim:
            self._store.trim()
            self._next_trim = now + TRIM_INTERVAL

    def _count_lost(self, event: NewEvent) -> None:
        self._lost[event.type] += 1
        self.lost += 1

    def _record_lost(self) -> None:
        """Record how many events were lost, now that one can be stored."""
        with self._lock:
            lost, self._lost = self._lost, Counter()
        if not lost:
            return
        number, why = lost.total(), f" ({self.problem})" if self.problem else ""
        wall, boot = timestamp_now()
        kind = kinds.EVENTS_LOST
        message = f"{number} events could not be stored{why}"
        event = NewEvent(wall, boot, self._boot_id, kind.level, kind.type, message, detail=detail_text({"lost": lost}))
        try:
            self._store.add([event])
        except BaseException:
            with self._lock:
                self._lost += lost
            raise
