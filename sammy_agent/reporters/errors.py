# SPDX-License-Identifier: Apache-2.0
"""Failures to /errors: each failed run once, from whatever boot, until the control plane has it.

The run records are the outbox; the agent's own events that are incidents, as a damaged store, are told from memory. An
incident's id is made from the run's or the event's, so that a report whose answer was lost, or one that cc_sammy sent
itself, is the same incident when it comes again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any

from cc_sammy.contract.fields import Outcome, Status
from cc_sammy.contract.incident import incident_id
from cc_sammy.contract.state import RunRecord
from sammy_agent.calls import CallFailed, ControlPlane
from sammy_agent.events.event import NewEvent
from sammy_agent.events.incidents import incident_of
from sammy_agent.events.store import EventStore
from sammy_agent.provisioning import Provisioning
from sammy_agent.worker import Backoff, Worker

LOG = logging.getLogger(__name__)
# The wire's limits for message and the whole body (32 KiB); reasons hold a command's last lines.
LONGEST_MESSAGE, LONGEST_STEP_REASON = 2048, 1000
# Answers that will never change for this report.
HOPELESS = (400, 413)


def incident(record: RunRecord) -> dict[str, Any]:
    """Return a failed run as an entry of POST /errors."""
    failed = [step for step in record.steps if step.status is Status.FAILED]
    return {
        "incidentId": incident_id(record.run_id, "failed"),
        "level": "error",
        "message": f"provisioning failed: {record.reason}"[:LONGEST_MESSAGE],
        "source": "provisioning",
        "timestamp": record.wall_clock,
        "context": {
            "runId": record.run_id,
            "bootId": record.boot_id,
            "durationMs": record.duration_ms,
            "failedSteps": [{"step": step.name, "reason": step.reason[:LONGEST_STEP_REASON]} for step in failed],
        },
    }


class Errors(Worker):
    """Sends what failed."""

    def __init__(
        self, plane: ControlPlane, level: Callable[[], Provisioning], store: EventStore, events: deque[NewEvent]
    ) -> None:
        super().__init__("errors")
        self._plane, self._level, self._store, self._events = plane, level, store, events
        self._backoff = Backoff(longest=60.0)
        self._done: set[str] = set()
        self._unsent = 0

    def turn(self) -> float | None:
        """Send every failed run that is not acknowledged, oldest first, one a request."""
        waiting = self._waiting()
        self._unsent = len(waiting) + len(self._events)
        try:
            for record in waiting:
                self._send(incident(record), f"run {record.run_id}")
                self._done.add(record.run_id)
            while self._events:
                self._send(incident_of(self._events[0]), self._events[0].type)
                self._events.popleft()
        except CallFailed as failed:
            return max(self._backoff.pause(), failed.retry_after)
        return None if self._remember() else self._backoff.pause()

    def _send(self, entry: dict[str, Any], what: str) -> None:
        """Send one; a report that is refused for good counts as sent. CallFailed: it is to be tried again."""
        try:
            self._plane.post("errors", "errors", {"errors": [entry]})
        except CallFailed as failed:
            if failed.status not in HOPELESS:
                raise
            LOG.error("the report of %s is refused for good: %s", what, failed)
        self._unsent -= 1
        self._backoff.reset()

    def snapshot(self) -> dict[str, Any]:
        """Return the `errors` part of the socket's status."""
        return {"unsent": self._unsent}

    def _waiting(self) -> list[RunRecord]:
        """Return failed runs that were not sent; this boot's also when the store cannot be read."""
        try:
            stored = {record.run_id: record for record in self._store.unreported_failures()}
        except (sqlite3.Error, OSError):
            stored = {}
            record = self._level().record
            if record is not None and record.outcome is Outcome.FAILED:
                stored[record.run_id] = record
        return [record for run_id, record in sorted(stored.items()) if run_id not in self._done]

    def _remember(self) -> bool:
        try:
            for run_id in sorted(self._done):
                self._store.mark_reported(run_id)
        except (sqlite3.Error, OSError):
            return False
        return True
