# SPDX-License-Identifier: Apache-2.0
"""The status of the connection to the control plane, for `sammy status`, systemd and the log; and its clock.

Every reporter says here how its last request went; the heartbeat decides whether the control plane is in contact.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock, iso

LOG = logging.getLogger(__name__)
PRIMARY_COMPONENT = "heartbeat"


class ConnectionStatus:
    """Thread-safe; `on_change` is told the heartbeat's state in words when it changes."""

    def __init__(
        self,
        on_change: Callable[[str], None] = lambda words: None,
        record: RecordEvent = discard_event,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._lock = threading.Lock()
        self._on_change, self._record, self.clock = on_change, record, clock
        self._problems: dict[str, Problem] = {}
        self._last_success: dict[str, float] = {}
        self._beat_monotonic: float | None = None
        self._failures = 0
        self._since, self._since_monotonic = self.clock.wall(), self.clock.monotonic()
        self.clock_offset: float | None = None

    def success(self, component: str) -> None:
        """Record that a reporter's request was answered as it should be."""
        with self._lock:
            before = self._problems.pop(component, None)
            first = component not in self._last_success
            self._last_success[component] = self.clock.wall()
            if component != PRIMARY_COMPONENT:
                return
            self._beat_monotonic = self.clock.monotonic()
            failures, self._failures = self._failures, 0
            lasted = self.clock.monotonic() - self._since_monotonic
            if before is not None or first:
                self._since, self._since_monotonic = self.clock.wall(), self.clock.monotonic()
        if before is not None or first:
            LOG.info(
                "contact with the control plane%s", f" again, after {failures} failed attempts" if failures else ""
            )
            self._on_change("in contact with the control plane")
            words = f"contact again after {lasted:.1f} s" if before else "contact with the control plane"
            detail = {"failures": failures, "cause": before.code.value} if before else None
            self._record(kinds.CONNECTED if first else kinds.CONTACT_REGAINED, words, detail=detail, seconds=lasted)

    def failure(self, component: str, problem: Problem) -> None:
        """Record that a reporter's request failed; logged when the problem is another than before."""
        with self._lock:
            before = self._problems.get(component)
            self._problems[component] = problem
            if component == PRIMARY_COMPONENT:
                self._failures += 1
                if before is None:
                    self._since, self._since_monotonic = self.clock.wall(), self.clock.monotonic()
        if before is None or before.code != problem.code:
            LOG.warning("%s: %s (%s)", component, problem, problem.code)
            if component == PRIMARY_COMPONENT:
                self._on_change(f"no contact: {problem.text}")
                self._record(
                    kinds.CONTACT_LOST,
                    problem.text,
                    detail={"code": problem.code.value, "next_step": problem.next_step},
                )
                if problem.code is Code.TOKEN_EXPIRED:
                    self._record(kinds.TOKEN_EXPIRED, problem.text)

    def is_ok(self) -> bool:
        """Tell whether the last heartbeat was answered as it should be."""
        with self._lock:
            return PRIMARY_COMPONENT in self._last_success and PRIMARY_COMPONENT not in self._problems

    def is_failing(self, component: str) -> bool:
        """Tell whether a reporter's last request failed."""
        with self._lock:
            return component in self._problems

    def server_time(self, offset: float | None = None) -> float:
        """Return the control plane's time as far as it is known, in seconds since the epoch.

        :param offset: of the answer in hand, which explains itself also where it is not accepted.
        """
        known = self.clock_offset if offset is None else offset
        return self.clock.wall() + (known or 0.0)

    def update_clock_offset(self, offset: float | None) -> None:
        """Learn the control plane's clock, minus ours in seconds, of an accepted answer; None where it told none."""
        if offset is not None:
            self.clock_offset = offset

    def snapshot(self) -> dict[str, Any]:
        """Return the `contact` part of the socket's status."""
        with self._lock:
            beat, problem = self._last_success.get(PRIMARY_COMPONENT), self._problems.get(PRIMARY_COMPONENT)
            age = None if self._beat_monotonic is None else round(self.clock.monotonic() - self._beat_monotonic, 1)
            return {
                "state": "failing" if problem else "never" if beat is None else "ok",
                "since": iso(self._since),
                "last_beat": iso(beat),
                "last_beat_age_s": age,
                "failures": self._failures,
                "cause": problem.to_json() if problem else None,
                "clock_offset_s": None if self.clock_offset is None else round(self.clock_offset, 1),
                "components": {
                    name: {
                        "last_success": iso(self._last_success.get(name)),
                        "cause": self._problems[name].to_json() if name in self._problems else None,
                    }
                    for name in sorted({*self._last_success, *self._problems})
                },
            }
