# SPDX-License-Identifier: Apache-2.0
"""Posts /ready for a run that ended ready or degraded until it is acknowledged, once; the acknowledgement is saved.

SAM posted it once, after any outcome, and never again: a single lost packet cost the node. Here it is posted again
too when the control plane, in a heartbeat's answer, still calls the node `creating`: it may have lost its memory.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sammy_agent import __version__
from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime import files, process, state_file
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire import endpoints
from sammy_agent.base.wire.statuses import NODE_CREATING, NODE_RUNNING
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.reporters.heartbeat import NodeStatus
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger
from sammy_agent.node.provisioning import ProvisioningState

LOG = logging.getLogger(__name__)
# ssh is closed only now: a node that failed before stays accessible.
FIREWALL = ("sammy", "firewall", "apply")
NOTE = "note: "  # begins a line of its output that the operator should know of
FIREWALL_DEADLINE, FIREWALL_ATTEMPTS = 120.0, 5


@dataclass(frozen=True)
class Acknowledgement:
    """An acknowledged ready: of which node, by which control plane, when, and if the firewall was applied since."""

    node_id: str
    url: str
    acknowledged_at: str
    firewall_applied: bool = False

    @classmethod
    def from_document(cls, document: Any) -> Acknowledgement:
        """Read it back. KeyError or TypeError."""
        return cls(
            str(document["node_id"]),
            str(document["url"]),
            str(document["acknowledged_at"]),
            document["firewall_applied"] is True,
        )

    def to_document(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return dict(self.__dict__)


def is_ready_answer(answer: Response) -> bool:
    """Return whether the control plane acknowledged."""
    return answer.document.get("status") == NODE_RUNNING


class ReadyReporter(Reporter):
    """Reports that this node is ready."""

    status_key = "ready"
    triggers = (Trigger.CONNECTED, Trigger.PROVISIONING)

    def __init__(
        self,
        plane: ReporterClient,
        level: Callable[[], ProvisioningState],
        paths: Paths,
        record: RecordEvent = discard_event,
        run: process.Run = process.run,
    ) -> None:
        super().__init__("ready")
        self._record, self._run = record, run
        self._plane, self._level, self._paths = plane, level, paths
        self._backoff = Backoff()
        self._attempts_left = FIREWALL_ATTEMPTS
        self._unsaved = False
        self._firewall_problem: Problem | None = None
        self._loaded = False
        self._acknowledgement: Acknowledgement | None = None
        self._acknowledged_monotonic = 0.0

    def run_once(self) -> float | None:
        """Do the next thing that is missing: post, save the acknowledgement, apply the firewall's rules."""
        if not self._loaded:
            self._load()
            self._loaded = True
        if self._acknowledgement is None:
            return self._post() if self._level().is_reportable_as_ready else None
        if self._unsaved and not self._save(self._acknowledgement):
            return self._backoff.next_delay()
        if not self._acknowledgement.firewall_applied and self._attempts_left > 0:
            return self._apply_firewall(self._acknowledgement)
        return None

    def on_node_status(self, node: NodeStatus) -> None:
        """Post again when the control plane, in answer to a heartbeat sent after it acknowledged, says `creating`."""
        known = self._acknowledgement
        if node.status == NODE_CREATING and known is not None and node.sent_at > self._acknowledged_monotonic:
            LOG.warning("the control plane calls this node creating although it acknowledged: posting ready again")
            self._record(kinds.READY_FORGOTTEN, "the control plane calls this node creating although it acknowledged")
            self._acknowledgement = None
            self.wake()

    def snapshot(self) -> dict[str, Any]:
        """Return the `ready` part of the socket's status."""
        known = self._acknowledgement
        waiting = "posting" if self._level().is_reportable_as_ready else "waiting"
        problem = self._firewall_problem
        return {
            "state": "acknowledged" if known else waiting,
            "acknowledged_at": known.acknowledged_at if known else None,
            "firewall_applied": known.firewall_applied if known else False,
            "cause": problem.to_json() if problem else None,
        }

    def _load(self) -> None:
        """Read what an earlier process was answered; without it ready is posted again, which does no harm."""
        found = state_file.load(self._paths.ready, Acknowledgement)
        if isinstance(found, Problem):
            LOG.warning("%s; ready will be posted again", found)
            self._firewall_problem = found
        elif found is not None and (found.node_id, found.url) == (self._plane.identity.node_id, self._plane.url):
            self._acknowledgement = found

    def _post(self) -> float:
        try:
            self._plane.post("ready", endpoints.READY, {"agentVersion": __version__}, accept=is_ready_answer)
        except RequestFailed as failed:
            return max(self._backoff.next_delay(), failed.retry_after)
        self._backoff.reset()
        self._acknowledged_monotonic = time.monotonic()
        self._acknowledgement = Acknowledgement(self._plane.identity.node_id, self._plane.url, iso(time.time()) or "")
        self._attempts_left = FIREWALL_ATTEMPTS
        LOG.info("ready: acknowledged by the control plane")
        self._record(kinds.READY_ACKNOWLEDGED, "ready: acknowledged by the control plane")
        self._unsaved = True
        return 0.0

    def _save(self, known: Acknowledgement) -> bool:
        """Save the acknowledgement and the mark that the firewall reads; a full disk is waited for."""
        try:
            files.write(self._paths.ready_acknowledged, known.acknowledged_at + "\n")
            files.write(self._paths.ready, json.dumps(known.to_document()) + "\n")
        except OSError as error:
            self._firewall_problem = Problem(
                Code.READY_UNSAVED, f"{error.filename} cannot be written: {error.strerror}", "Make room: df -h /var"
            )
            return False
        self._unsaved, self._firewall_problem = False, None
        self._backoff.reset()
        return True

    def _apply_firewall(self, known: Acknowledgement) -> float | None:
        self._attempts_left -= 1
        done = self._run(FIREWALL, FIREWALL_DEADLINE)
        if done.ok:
            notes = [line.removeprefix(NOTE) for line in done.text.splitlines() if line.startswith(NOTE)]
            for note in notes:
                LOG.warning("firewall: %s", note)
            message = "; ".join(["the firewall holds the rules of a node that is ready", *notes])
            self._record(kinds.FIREWALL_APPLIED, message, detail={"notes": notes} if notes else None)
            self._acknowledgement, self._unsaved = (
                Acknowledgement(known.node_id, known.url, known.acknowledged_at, True),
                True,
            )
            return 0.0
        LOG.warning("ready is acknowledged, but %s: %s", " ".join(FIREWALL), done.failure)
        self._record(kinds.FIREWALL_FAILED, f"`{' '.join(FIREWALL)}` failed: {done.failure}")
        self._firewall_problem = Problem(
            Code.FIREWALL_APPLY, f"`{' '.join(FIREWALL)}` failed: {done.failure}", "Run it by hand"
        )
        return self._backoff.next_delay()
