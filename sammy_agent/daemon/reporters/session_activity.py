# SPDX-License-Identifier: Apache-2.0
"""Reports what ACP sessions do: the newest state of each session, in order, until the control plane has it.

SAM sends these from goroutines, so that an old `prompting` may overtake the `idle` after it, and gives up after five
tries. Here one thread sends the newest state of each session; what a newer one has overtaken is not sent any more.
A state that is being worked in is told again each minute, and each project with sessions gets the node's keep-alive:
SAM takes a session for interrupted after 300 s without one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.wire import endpoints, fields
from sammy_agent.base.wire.ids import is_id
from sammy_agent.base.wire.limits import MAX_STATUS_ERROR, SESSION_REPEAT_SECONDS
from sammy_agent.base.wire.statuses import ACTIVITIES, BUSY_ACTIVITIES
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger

LOG = logging.getLogger(__name__)


class ActivityInvalid(AgentError):
    """A report that no control plane would accept: the caller has a bug."""

    code = Code.ACTIVITY_INVALID


class Session(NamedTuple):
    """A session of a project, by their ids on the control plane."""

    project: str
    id: str


@dataclass
class _State:
    body: dict[str, Any]
    due: float = 0.0  # time.monotonic; when it is to be sent next
    version: int = 0
    ended: bool = False


def parse(document: Mapping[str, Any]) -> tuple[Session, dict[str, Any], bool]:
    """Return the session, the body of its report, and whether it ended. ActivityInvalid names the key that is wrong."""
    session = Session(_id(document, "project"), _id(document, "session"))
    if document.get("activity") not in ACTIVITIES:
        raise ActivityInvalid(f"activity is {document.get('activity')!r}; allowed is {', '.join(ACTIVITIES)}")
    body: dict[str, Any] = {"activity": document["activity"]}
    for name, kind in fields.ACTIVITY.items():
        value = document.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ActivityInvalid(f"{name} is {value!r}, which is of the wrong type")
        body[name] = value[:MAX_STATUS_ERROR] if isinstance(value, str) else value
    return session, body, document.get("ended") is True


def _id(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not is_id(value):
        raise ActivityInvalid(f"{name} is {value!r}; allowed are letters, digits, . _ and -")
    return value


class SessionActivityReporter(Reporter):
    """Reports the newest state of each session."""

    status_key = "sessions"
    triggers = (Trigger.CONNECTED,)

    def __init__(self, plane: ReporterClient, again: float = SESSION_REPEAT_SECONDS) -> None:
        super().__init__("activity")
        self._plane, self._again = plane, again
        self._lock = threading.Lock()
        self._states: dict[Session, _State] = {}
        self._keepalive_due: dict[str, float] = {}
        self._backoff = Backoff()

    def update(self, document: Mapping[str, Any]) -> None:
        """Take a session's state; `ended` with its last one. ActivityInvalid."""
        session, body, ended = parse(document)
        with self._lock:
            known = self._states.pop(session, None)  # to the end: sessions are reported in the order they changed
            version = known.version + 1 if known else 0
            self._states[session] = _State(body, version=version, ended=ended)
            self._keepalive_due.setdefault(session.project, 0.0)
        self.wake()

    def count(self) -> int:
        """Return how many sessions have not ended."""
        with self._lock:
            return sum(not state.ended for state in self._states.values())

    def snapshot(self) -> dict[str, Any]:
        """Return the `sessions` part of the socket's status."""
        with self._lock:
            return {
                f"{session.project}/{session.id}": {
                    "activity": state.body["activity"],
                    "told": state.due > 0,
                }
                for session, state in self._states.items()
            }

    def run_once(self) -> float | None:
        """Send what is due; return the seconds until something is."""
        try:
            while (due := self._next_session()) is not None:
                self._send(*due)
            while (project := self._next_project()) is not None:
                self._send_keepalive(project)
        except RequestFailed as failed:
            return max(self._backoff.next_delay(), failed.retry_after)
        self._backoff.reset()
        return self._pause()

    def _next_session(self) -> tuple[Session, int, dict[str, Any]] | None:
        now = time.monotonic()
        with self._lock:
            for session, state in self._states.items():
                if state.due <= now:
                    return session, state.version, dict(state.body)
        return None

    def _next_project(self) -> str | None:
        now = time.monotonic()
        with self._lock:
            return next((project for project, due in self._keepalive_due.items() if due <= now), None)

    def _send(self, session: Session, version: int, body: dict[str, Any]) -> None:
        """Send one state. RequestFailed when it is to be tried again before anything else."""
        path = endpoints.SESSION_ACTIVITY.format(project=session.project, session=session.id)
        gone = closed = False
        try:
            self._plane.post("activity", path, {**body, "nodeId": self._plane.identity.node_id})
        except RequestFailed as failed:
            gone, closed = failed.status in (400, 404), failed.status in (401, 403)
            if not gone and not closed:
                raise
            if gone:
                LOG.warning("session %s of project %s is no longer reported: %s", session.id, session.project, failed)
        with self._lock:
            state = self._states.get(session)
            if state is None or state.version != version:
                return  # a newer one is due already
            if closed:  # this session alone is refused: others need not wait for it
                state.due = time.monotonic() + self._again
            elif gone or state.ended:
                del self._states[session]
                if not any(other.project == session.project for other in self._states):
                    self._keepalive_due.pop(session.project, None)
            else:
                busy = state.body["activity"] in BUSY_ACTIVITIES
                state.due = time.monotonic() + self._again if busy else float("inf")

    def _send_keepalive(self, project: str) -> None:
        """Send the keep-alive of this node's sessions in a project. RequestFailed when it is to be retried."""
        try:
            path = endpoints.NODE_ACP_HEARTBEAT.format(project=project)
            self._plane.post("activity", path, {"nodeId": self._plane.identity.node_id})
        except RequestFailed as failed:
            if failed.status not in (400, 401, 403, 404):
                raise
            LOG.debug("project %s does not accept keep-alives: %s", project, failed)
        with self._lock:
            if project in self._keepalive_due:
                self._keepalive_due[project] = time.monotonic() + self._again

    def _pause(self) -> float | None:
        with self._lock:
            dues = [*(state.due for state in self._states.values()), *self._keepalive_due.values()]
        finite = [due for due in dues if due != float("inf")]
        return max(0.0, min(finite) - time.monotonic()) if finite else None
