# SPDX-License-Identifier: Apache-2.0
"""Pushes a debug package to the control plane after provisioning failed and after a long outage.

Exactly the nodes that need one cannot be asked for it. Each incident has one package, made by a program of its own with
the machine's spare time, kept on disk until it is acknowledged, and sent in a session of its own: no heartbeat waits.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from cc_sammy.contract.incident_id import incident_id
from cc_sammy.contract.run_record import Outcome
from sammy_agent.base.errors import Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent
from sammy_agent.base.runtime import files, process, state_file
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire import endpoints, statuses
from sammy_agent.base.wire.claims import CHECKSUM_HEADER
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.reporters.errors import PERMANENT_STATUSES, incident
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger
from sammy_agent.diagnostics.debug_package import launcher
from sammy_agent.diagnostics.event_store.recent import RecentEvent
from sammy_agent.node.provisioning import ProvisioningState

LOG = logging.getLogger(__name__)
MAX_MIB = 1.9  # the wire's bound is 2: limits.MAX_ARTIFACT_BYTES
LOW_PRIORITY = ("nice", "-n", "19", "ionice", "-c", "idle")  # each becomes the next: one process in the end
DEADLINE = 120.0  # for building one; with the requests it is less than TASK_TIMEOUT
LOG_SETTLE_SECONDS = 5.0  # after the failure, until the last lines have reached their logs
LONGEST_PAUSE = 300.0
MAX_AGE_DAYS = 7
MAX_WAITING, MAX_DONE = 5, 100


@dataclass
class Incident:
    """One incident whose package is wanted; `entry` is its error report."""

    entry: dict[str, Any]
    since: float
    packed: bool = False

    @property
    def incident(self) -> str:
        """The incident's id, a ULID."""
        return str(self.entry["incidentId"])


@dataclass
class PushState:
    """What outlives the process: whose package is wanted, and whose is acknowledged."""

    waiting: list[Incident] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @classmethod
    def from_document(cls, document: Any) -> PushState:
        """Return the value; raises what state_file.load expects of a document that is not one."""
        waiting = [
            Incident(dict(one["entry"]), float(one["since"]), bool(one["packed"])) for one in document["waiting"]
        ]
        return cls([case for case in waiting if case.entry["incidentId"]], list(map(str, document["done"])))

    def to_document(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return asdict(self)

    def enqueue(self, entry: dict[str, Any], now: float) -> bool:
        """Queue an incident; return False if already known. The oldest is evicted when the queue is full."""
        known = {case.incident for case in self.waiting} | set(self.done)
        if entry["incidentId"] in known:
            return False
        self.waiting = [*self.waiting[-MAX_WAITING + 1 :], Incident(entry, now)]
        return True

    def end(self, case: Incident) -> None:
        """Mark an incident as finished."""
        self.waiting.remove(case)
        self.done = [*self.done[-MAX_DONE + 1 :], case.incident]


def lost_contact(seconds: float, words: str, now: float) -> dict[str, Any]:
    """Return the error report of an outage that is over."""
    began = datetime.fromtimestamp(now - seconds, timezone.utc)
    return {
        "incidentId": incident_id(f"{began:%Y%m%dT%H%M%S}-contact", "contact-lost"),
        "level": "error",
        "message": f"this node was without contact to its control plane for {seconds / 60:.1f} minutes",
        "source": "agent",
        "timestamp": began.isoformat(timespec="milliseconds"),
        "context": {"seconds": round(seconds, 1), "words": words},
    }


class DebugPackagePusher(Reporter):
    """Builds and sends them, one at a time.

    :param lost_seconds: an outage that was longer is an incident.
    """

    status_key = "packages"
    triggers = (Trigger.CONNECTED, Trigger.PROVISIONING)

    def __init__(
        self,
        plane: ReporterClient,
        level: Callable[[], ProvisioningState],
        paths: Paths,
        lost_seconds: float,
        record: RecordEvent,
    ) -> None:
        super().__init__("packages")
        self._plane, self._level, self._paths = plane, level, paths
        self._lost_seconds, self._record = lost_seconds, record
        self._lock = threading.Lock()
        self._outages: list[dict[str, Any]] = []
        self._memory: PushState | None = None
        self._backoff = Backoff(first=2.0, longest=LONGEST_PAUSE)
        self._problem = ""
        self._program: process.Program | None = None

    def on_event(self, event: RecentEvent) -> None:
        """Queue an incident when the connection is back after a long outage."""
        if event.kind is kinds.CONTACT_REGAINED and event.seconds is not None and event.seconds >= self._lost_seconds:
            with self._lock:
                self._outages.append(lost_contact(event.seconds, event.message, time.time()))
            self.wake()

    def run_once(self) -> float | None:
        """Queue what is new; build and send the oldest. One per run: a run must not look like a hang."""
        memory = self._remembered()
        self._enqueue_new(memory)
        if not memory.waiting:
            return None
        case = memory.waiting[0]
        if time.time() - case.since <= MAX_AGE_DAYS * 86400:
            pause = self._advance(memory, case)
            if pause is not None:
                return pause
        self._finish(memory, case)
        self._backoff.reset()
        return 0.0

    def _advance(self, memory: PushState, case: Incident) -> float | None:
        """Build and send an incident's package; return None when finished, else the delay before the next attempt."""
        if not case.packed:
            if (early := case.since + LOG_SETTLE_SECONDS - time.time()) > 0:
                return min(early, LOG_SETTLE_SECONDS)
            if not self._make(case):
                return self._backoff.next_delay()
            case.packed = True
            self._save(memory)
        try:
            self._send(case)
        except RequestFailed as failed:
            self._problem = str(failed)
            if failed.status not in PERMANENT_STATUSES:
                return max(self._backoff.next_delay(), failed.retry_after)
            LOG.error("the debug package of incident %s was rejected permanently: %s", case.incident, failed)
        return None

    def stop(self) -> None:
        """Let no further run begin, and stop the program that builds a package."""
        super().stop()
        if self._program is not None:
            self._program.stop()

    def snapshot(self) -> dict[str, Any]:
        """Return the `packages` part of the socket's status."""
        memory = self._memory or PushState()
        return {"waiting": len(memory.waiting), "sent": len(memory.done), "problem": self._problem or None}

    def _enqueue_new(self, memory: PushState) -> None:
        with self._lock:
            entries, self._outages = self._outages, []
        record = self._level().record
        if record is not None and record.outcome is Outcome.FAILED:
            entries.append(incident(record))
        now = time.time()
        news = [memory.enqueue(entry, now) for entry in entries]  # not in any(): every one is queued
        if any(news):
            self._save(memory)

    def _make(self, case: Incident) -> bool:
        """Run the program that builds the package; return whether it did."""
        path = self._path(case)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            for left in glob.glob(os.path.join(glob.escape(self._folder), "*.new")):
                files.remove(left)  # by a program that was killed
        except OSError as error:
            return self._not_made(str(error))
        argv = [*LOW_PRIORITY, *launcher.argv(path, self._paths.root, f"--most={MAX_MIB}")]
        self._program = process.Program(argv, DEADLINE)
        if self._stopping.is_set():  # `stop` may have come before there was a program to stop
            self._program.stop()
        done = self._program.wait()
        return done.ok or self._not_made(launcher.failure(done))

    def _not_made(self, why: str) -> bool:
        self._problem = f"no debug package was made: {why}"
        LOG.warning("%s", self._problem)
        return False

    def _send(self, case: Incident) -> None:
        """Report the incident, declare its package and send it; all of it may be repeated. RequestFailed."""
        try:
            with open(self._path(case), "rb") as file:
                content = file.read()
        except OSError as error:
            LOG.warning("the debug package of incident %s is gone: %s", case.incident, error)
            return
        digest = hashlib.sha256(content).hexdigest()
        artifact = statuses.artifact_id(case.incident)
        ids = {"node": self._plane.identity.node_id, "incident": case.incident, "artifact": artifact}
        self._plane.post("packages", endpoints.ERRORS, {"errors": [case.entry]})
        declared = {
            "artifactId": artifact,
            "kind": statuses.ARTIFACT_KIND,
            "contentType": "application/gzip",
            "sizeBytes": len(content),
            "checksumSha256": digest,
            "manifest": {"schemaVersion": 1, "incidentId": case.incident, "collector": "sammy-agent debug-package"},
            "preview": {"message": case.entry["message"], "source": case.entry["source"]},
            "status": statuses.ARTIFACT_READY,
        }
        try:
            self._plane.post("packages", endpoints.ARTIFACTS.format_map(ids), declared)
            self._plane.put("packages", endpoints.ARTIFACT_CONTENT.format_map(ids), content, {CHECKSUM_HEADER: digest})
        except RequestFailed as failed:
            if failed.status != 409:  # it is there already
                raise
        LOG.info("the debug package of incident %s was pushed, %d bytes", case.incident, len(content))
        self._record(
            kinds.PACKAGE_PUSHED,
            f"a debug package of {len(content)} bytes went to the control plane: {case.entry['message']}",
            detail={"incident": case.incident, "bytes": len(content)},
        )

    def _finish(self, memory: PushState, case: Incident) -> None:
        memory.end(case)
        self._save(memory)
        self._problem = ""
        with contextlib.suppress(OSError):
            files.remove(self._path(case))

    @property
    def _folder(self) -> str:
        return self._paths.packages

    def _path(self, case: Incident) -> str:
        return os.path.join(self._folder, f"{case.incident}.tar.gz")

    def _remembered(self) -> PushState:
        if self._memory is None:
            found = state_file.load(os.path.join(self._folder, "memory.json"), PushState)
            if isinstance(found, Problem):  # one more package does no harm
                LOG.warning("%s", found)
                found = None
            self._memory = found or PushState()
        return self._memory

    def _save(self, memory: PushState) -> None:
        """Save the state; a full disk costs at most a package that is built again."""
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        except OSError as error:
            LOG.warning("%s cannot be created: %s", self._folder, error.strerror)
            return
        if problem := state_file.save(os.path.join(self._folder, "memory.json"), memory):
            LOG.warning("%s", problem)
