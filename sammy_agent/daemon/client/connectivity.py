# SPDX-License-Identifier: Apache-2.0
"""What is known of the contact with the control plane, for `sammy status`, systemd and the log.

Every reporter tells here how its last call went; the heartbeat's word decides whether there is contact.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime.clock import iso

LOG = logging.getLogger(__name__)
DECIDING = "heartbeat"


class Contact:
    """Thread-safe; `on_change` is told the heartbeat's state in words when it changes."""

    def __init__(
        self, on_change: Callable[[str], None] = lambda words: None, record: RecordEvent = discard_event
    ) -> None:
        self._lock = threading.Lock()
        self._on_change, self._record = on_change, record
        self._causes: dict[str, Problem] = {}
        self._last_success: dict[str, float] = {}
        self._beat_monotonic: float | None = None
        self._failures = 0
        self._since, self._since_monotonic = time.time(), time.monotonic()
        self.clock_offset: float | None = None

    def success(self, component: str) -> None:
        """A reporter's call was answered as it should be."""
        with self._lock:
            before = self._causes.pop(component, None)
            first = component not in self._last_success
            self._last_success[component] = time.time()
            if component != DECIDING:
                return
            self._beat_monotonic = time.monotonic()
            failures, self._failures = self._failures, 0
            lasted = time.monotonic() - self._since_monotonic
            if before is not None or first:
                self._since, self._since_monotonic = time.time(), time.monotonic()
        if before is not None or first:
            LOG.info(
                "contact with the control plane%s", f" again, after {failures} failed attempts" if failures else ""
            )
            self._on_change("in contact with the control plane")
            words = f"contact again after {lasted:.1f} s" if before else "contact with the control plane"
            detail = {"failures": failures, "cause": before.code.value} if before else None
            self._record(kinds.CONNECTED if first else kinds.CONTACT_REGAINED, words, detail=detail, seconds=lasted)

    def failure(self, component: str, cause: Problem) -> None:
        """A reporter's call failed; the log hears of it when the cause is another than before."""
        with self._lock:
            before = self._causes.get(component)
            self._causes[component] = cause
            if component == DECIDING:
                self._failures += 1
                if before is None:
                    self._since, self._since_monotonic = time.time(), time.monotonic()
        if before is None or before.code != cause.code:
            LOG.warning("%s: %s (%s)", component, cause, cause.code)
            if component == DECIDING:
                self._on_change(f"no contact: {cause.text}")
                self._record(
                    kinds.CONTACT_LOST, cause.text, detail={"code": cause.code.value, "next_step": cause.next_step}
                )
                if cause.code is Code.TOKEN_EXPIRED:
                    self._record(kinds.TOKEN_EXPIRED, cause.text)

    def is_ok(self) -> bool:
        """Tell whether the last heartbeat was answered as it should be."""
        with self._lock:
            return DECIDING in self._last_success and DECIDING not in self._causes

    def is_failing(self, component: str) -> bool:
        """Tell whether a reporter's last call failed."""
        with self._lock:
            return component in self._causes

    def snapshot(self) -> dict[str, Any]:
        """Return the `contact` part of the socket's status."""
        with self._lock:
            beat, cause = self._last_success.get(DECIDING), self._causes.get(DECIDING)
            age = None if self._beat_monotonic is None else round(time.monotonic() - self._beat_monotonic, 1)
            return {
                "state": "failing" if cause else "never" if beat is None else "ok",
                "since": iso(self._since),
                "last_beat": iso(beat),
                "last_beat_age_s": age,
                "failures": self._failures,
                "cause": cause.to_json() if cause else None,
                "clock_offset_s": None if self.clock_offset is None else round(self.clock_offset, 1),
                "components": {
                    name: {
                        "last_success": iso(self._last_success.get(name)),
                        "cause": self._causes[name].to_json() if name in self._causes else None,
                    }
                    for name in sorted({*self._last_success, *self._causes})
                },
            }
