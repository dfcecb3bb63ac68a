# SPDX-License-Identifier: Apache-2.0
"""Reports failures to /errors through the outbox: each failed run of any boot once, and the agent's own incidents.

An incident's id is made from the run's or the event's, so that a report whose answer was lost, or one that cc_sammy
sent itself, is the same incident when it comes again. A disk that takes nothing is a usual reason of a failure, so
where the outbox cannot keep an incident it is sent from memory.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from cc_sammy.contract.incident_id import incident_id
from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from sammy_agent.base.events.event import NewEvent
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.wire import endpoints
from sammy_agent.base.wire.limits import MAX_ERROR_MESSAGE
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.outbox.channels import ERRORS, Lane, NewRow, Priority
from sammy_agent.daemon.outbox.queue import Outbox, OutboxUnavailable
from sammy_agent.daemon.reporters.messages import replace_lone_surrogates
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.incidents import incident_from_event
from sammy_agent.node.provisioning import ProvisioningState

LOG = logging.getLogger(__name__)
LONGEST_STEP_REASON = 1000  # characters; reasons hold a command's last lines
# Answers that will never change for this report.
PERMANENT_STATUSES = (400, 413)


def incident(record: RunRecord) -> dict[str, Any]:
    """Return a failed run as an entry of POST /errors."""
    failed = [step for step in record.steps if step.status is Status.FAILED]
    return {
        "incidentId": incident_id(record.run_id, "failed"),
        "level": "error",
        "message": f"provisioning failed: {record.reason}"[:MAX_ERROR_MESSAGE],
        "source": "provisioning",
        "timestamp": record.wall_clock,
        "context": {
            "runId": record.run_id,
            "bootId": record.boot_id,
            "durationMs": record.duration_ms,
            "failedSteps": [{"step": step.name, "reason": step.reason[:LONGEST_STEP_REASON]} for step in failed],
        },
    }


def row(entry: Mapping[str, Any]) -> NewRow:
    """Return an incident as a row; a context that is too large for the wire is replaced by a mark."""
    body = _json(entry)
    if len(body.encode()) > ERRORS.most_row_bytes:
        body = _json({**entry, "context": {"truncated": True, "bytes": len(body.encode())}})
    return NewRow(str(entry["incidentId"]), body, Priority.HIGH)


def _json(value: object) -> str:
    return replace_lone_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class ErrorReporter(Reporter):
    """Puts incidents into the outbox, or sends them itself when the outbox cannot store them.

    :param events: the agent's own events that are incidents, waiting in memory.
    """

    status_key = "errors"
    triggers = (Trigger.CONNECTED, Trigger.PROVISIONING, Trigger.STORED, Trigger.INCIDENT)

    def __init__(
        self,
        plane: ReporterClient,
        level: Callable[[], ProvisioningState],
        store: EventStore,
        outbox: Outbox,
        events: deque[NewEvent],
    ) -> None:
        super().__init__("errors")
        self._plane, self._level, self._store, self._outbox, self._events = plane, level, store, outbox, events
        self._lane = Lane(ERRORS.name, plane.identity.node_id)
        self._backoff = Backoff(longest=60.0)
        self._done: set[str] = set()
        self._unsent = 0

    def report(self, entry: Mapping[str, Any]) -> None:
        """Store an incident until the control plane has acknowledged it.

        :param entry: incidentId (a ULID, the same for the same incident), level, message, source, timestamp, context.
        :raises OutboxUnavailable: the disk takes nothing.
        """
        self._outbox.add(self._lane, [row(entry)])

    def run_once(self) -> float | None:
        """Report every unreported failed run, oldest first, and the agent's own incidents."""
        waiting = self._unreported()
        self._unsent = len(waiting) + len(self._events)
        try:
            for record in waiting:
                self._enqueue_or_send(incident(record), f"run {record.run_id}")
                self._done.add(record.run_id)
            while self._events:
                self._enqueue_or_send(incident_from_event(self._events[0]), self._events[0].type)
                self._events.popleft()
        except RequestFailed as failed:
            return max(self._backoff.next_delay(), failed.retry_after)
        return None if self._mark_reported() else self._backoff.next_delay()

    def snapshot(self) -> dict[str, Any]:
        """Return the `errors` part of the socket's status: incidents that are neither delivered nor on disk."""
        return {"unsent": self._unsent}

    def _enqueue_or_send(self, entry: Mapping[str, Any], what: str) -> None:
        """Put it into the outbox, else send it. RequestFailed when neither works: it will be retried."""
        try:
            self.report(entry)
        except OutboxUnavailable as error:
            LOG.warning("the report of %s is sent from memory: %s", what, error)
            self._send(entry, what)
        self._unsent -= 1
        self._backoff.reset()

    def _send(self, entry: Mapping[str, Any], what: str) -> None:
        """Send one; a report that is rejected permanently counts as sent. RequestFailed."""
        try:
            self._plane.post("errors", endpoints.ERRORS, {"errors": [dict(entry)]})
        except RequestFailed as failed:
            if failed.status not in PERMANENT_STATUSES:
                raise
            LOG.error("the report of %s was rejected permanently: %s", what, failed)

    def _unreported(self) -> list[RunRecord]:
        """Return failed runs that were not reported; this boot's also when the store cannot be read."""
        try:
            stored = {record.run_id: record for record in self._store.unreported_failures()}
        except (sqlite3.Error, OSError):
            stored = {}
            record = self._level().record
            if record is not None and record.outcome is Outcome.FAILED:
                stored[record.run_id] = record
        return [record for run_id, record in sorted(stored.items()) if run_id not in self._done]

    def _mark_reported(self) -> bool:
        try:
            for run_id in sorted(self._done):
                self._store.mark_reported(run_id)
        except (sqlite3.Error, OSError):
            return False
        return True
