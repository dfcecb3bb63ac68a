# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: the first at once, then each interval, sooner after a failure; it carries the state of provisioning.

The wire knows nothing of provisioning before /ready; unknown fields are passed over there, so the heartbeat carries
phase, outcome and reason for those who read them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sammy_agent import __version__
from sammy_agent.base.errors import TokenUnusable
from sammy_agent.base.runtime.backoff import Backoff, jittered
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.wire import endpoints
from sammy_agent.base.wire.claims import REFRESHED_TOKEN
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.reporters.reporter import Reporter
from sammy_agent.node import heartbeat_metrics
from sammy_agent.node.provisioning import MAX_REASON_CHARACTERS, ProvisioningState

LOG = logging.getLogger(__name__)
JITTER = 0.1
# Longest delay after failures: within the 180 s after which the control plane calls a node stale.
LONGEST_PAUSE = 30.0
SHORTEST_DEADLINE, LONGEST_DEADLINE = 3.0, 20.0


def is_heartbeat_answer(answer: Response) -> bool:
    """Return whether the answer is a control plane's."""
    return isinstance(answer.document.get("status"), str) and isinstance(answer.document.get("healthStatus"), str)


class NodeStatus(NamedTuple):
    """What the control plane answered to a heartbeat sent at `sent_at` (time.monotonic)."""

    status: str
    sent_at: float


class HeartbeatReporter(Reporter):
    """Sends heartbeats."""

    def __init__(
        self,
        plane: ReporterClient,
        level: Callable[[], ProvisioningState],
        interval: float,
        port: int | None = None,
        get_problem: Callable[[], str] = lambda: "",
    ) -> None:
        """Take the client and the state that is sent.

        :param port: of the node's own server, for the control plane to connect to.
        :param get_problem: what is wrong besides the provisioning; it stands first in the heartbeat's reason.
        """
        super().__init__("heartbeat")
        self._port, self._get_problem = port, get_problem
        self._plane, self._level, self._interval = plane, level, interval
        self._backoff = Backoff(min(1.0, interval), min(LONGEST_PAUSE, interval))
        self._deadline = max(SHORTEST_DEADLINE, min(LONGEST_DEADLINE, interval / 3))
        self._steps_known = ""
        self._in_contact = False
        self.connected: Signal[None] = Signal()  # for the first time, or again after an outage
        self.status_received: Signal[NodeStatus] = Signal()

    def run_once(self) -> float:
        """Send one heartbeat."""
        self._plane.identity.reload()
        body, steps = self._body()
        sent = time.monotonic()
        try:
            answer = self._plane.post(
                "heartbeat", endpoints.HEARTBEAT, body, accept=is_heartbeat_answer, deadline=self._deadline
            )
        except RequestFailed as failed:
            self._in_contact = False
            return max(self._backoff.next_delay(), failed.retry_after)
        self._backoff.reset()
        self._steps_known = steps
        self._take_token(answer.document.get(REFRESHED_TOKEN))
        self.status_received.emit(NodeStatus(answer.document["status"], sent))
        if not self._in_contact:
            self._in_contact = True
            self.connected.emit(None)
        return jittered(self._interval, JITTER)

    def _body(self) -> tuple[dict[str, Any], str]:
        """Return the heartbeat, and the steps as a text by which a change of them is known."""
        level = self._level()
        body: dict[str, Any] = {
            "activeWorkspaces": 0,
            "agentVersion": __version__,
            "nodeId": self._plane.identity.node_id,
            **level.summary(),
        }
        reason = "; ".join(filter(None, (self._get_problem(), body.get("reason"))))
        if reason:
            body["reason"] = reason[:MAX_REASON_CHARACTERS]
        if self._port is not None:
            body["agentPort"] = self._port
        metrics = heartbeat_metrics.collect()
        if metrics:
            body["metrics"] = metrics
        steps = level.steps()
        text = json.dumps([body.get("runId"), steps])
        if steps and text != self._steps_known:
            body["steps"] = steps
        return body, text

    def _take_token(self, text: Any) -> None:
        if not isinstance(text, str):
            return
        try:
            self._plane.identity.refresh(text)
        except TokenUnusable as error:
            LOG.warning("ignoring the refreshed token: %s", error)
