# SPDX-License-Identifier: Apache-2.0
"""Failures to /errors: each failed run once, from whatever boot, until the control plane has it.

The run records are the outbox. An incident's id is made from the run's, so that a report whose answer was lost, or one
that cc_sammy sent itself, is the same incident when it comes again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from cc_sammy.contract.fields import Outcome, Status
from cc_sammy.contract.incident import incident_id
from cc_sammy.contract.state import RunRecord
from sammy_agent.calls import CallFailed, ControlPlane
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

    def __init__(self, plane: ControlPlane, level: Callable[[], Provisioning], store: EventStore) -> None:
        super().__init__("errors")
        self._plane, self._level, self._store = plane, level, store
        self._backoff = Backoff(longest=60.0)
        self._done: set[str] = set()
        self._unsent = 0

    def turn(self) -> float | None:
        """Send every failed run that is not acknowledged, oldest first, one a request."""
        waiting = self._waiting()
        self._unsent = len(waiting)
        for record in waiting:
            try:
                self._plane.post("errors", "errors", {"errors": [incident(record)]})
            except CallFailed as failed:
                if failed.status not in HOPELESS:
                    return max(self._backoff.pause(), failed.retry_after)
                LOG.error("the report of run %s is refused for good: %s", record.run_id, failed)
            self._done.add(record.run_id)
            self._unsent -= 1
            self._backoff.reset()
        return None if self._remember() else self._backoff.pause()

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
