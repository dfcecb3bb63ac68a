# SPDX-License-Identifier: Apache-2.0
"""Starts services one by one and closes them in reverse; one that cannot start costs its own task alone.

A reporter whose state file was unreadable once kept the agent from all contact, and each attempt left threads and
descriptors of its siblings behind. So nothing happens before `start`, what fails there is a Problem of that service,
and only that service is tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock

LOG = logging.getLogger(__name__)
FIRST_RETRY, LONGEST_RETRY = 5.0, 60.0  # seconds


class Service(Protocol):
    """What has a start and an end; every Worker is one."""

    @property
    def name(self) -> str:
        """How the log and the status call it."""

    def start(self) -> None:
        """Begin; may raise, and may be called again then."""

    def stop(self) -> None:
        """End; called once, after a start that did not raise."""


class Hooks(NamedTuple):
    """A service made of two functions."""

    name: str
    start: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None


class _Entry:
    """A service and how its start went."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.started = False
        self.problem: Problem | None = None
        self.due = 0.0
        self.backoff = Backoff(FIRST_RETRY, LONGEST_RETRY)


class ServiceGroup:
    """Services in the order of their start. Thread-safe: it may be closed while it starts."""

    def __init__(self, services: Sequence[Service], clock: Clock = SYSTEM_CLOCK) -> None:
        self._entries = [_Entry(service) for service in services]
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = self._closed = False

    def __repr__(self) -> str:
        return f"<ServiceGroup {len(self.started())} of {len(self._entries)} started>"

    def start(self) -> float | None:
        """Start all; return the seconds until `retry` is due, None when all are started or the group is closed.

        :raises RuntimeError: it was started before.
        """
        with self._lock:
            if self._begun:
                raise RuntimeError("the services were started before")
            self._begun = True
        return self.retry()

    def retry(self) -> float | None:
        """Start what failed and is due again; return the seconds until the next attempt, None when there is none."""
        for entry in self._entries:
            with self._lock:
                if self._closed:
                    return None
                if not entry.started and entry.due <= self._clock.monotonic():
                    self._try(entry)
        left = [entry.due for entry in self._entries if not entry.started]
        return max(0.0, min(left) - self._clock.monotonic()) if left else None

    def close(self) -> None:
        """Stop what was started, the last one first; more than once has no effect."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            started = [entry for entry in self._entries if entry.started]
        for entry in reversed(started):
            try:
                entry.service.stop()
            except Exception:
                LOG.exception("%s could not be stopped", entry.service.name)

    def started(self) -> list[Service]:
        """Return what was started."""
        return [entry.service for entry in self._entries if entry.started]

    def problems(self) -> dict[str, Problem]:
        """Return why services are not started, by their names."""
        return {entry.service.name: entry.problem for entry in self._entries if entry.problem is not None}

    def _try(self, entry: _Entry) -> None:
        name, before = entry.service.name, entry.problem
        try:
            entry.service.start()
        except Exception as error:
            entry.problem = _problem(name, error)
            entry.due = self._clock.monotonic() + entry.backoff.next_delay()
            if entry.problem != before:
                expected = isinstance(error, (AgentError, OSError, RuntimeError))  # RuntimeError: no thread left
                LOG.error("%s; it will be retried", entry.problem, exc_info=None if expected else error)
            return
        entry.started, entry.problem = True, None
        if before is not None:
            LOG.info("%s: started", name)


def _problem(name: str, error: Exception) -> Problem:
    if isinstance(error, AgentError):
        return error.problem
    why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    next_step = "Check the limits and the disk: systemctl status sammy-agent, df -h"
    return Problem(Code.SERVICE_NOT_STARTED, f"{name} cannot be started: {why or type(error).__name__}", next_step)
