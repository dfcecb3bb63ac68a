# SPDX-License-Identifier: Apache-2.0
"""The agent: starts its services once the machine is known, says whether they work, and answers the control socket.

It is alive to systemd's watchdog only while no task hangs. Every task is a thread that may be killed at any moment:
what matters is on disk before anyone relies on it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock, this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.sd_notify import notify
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher
from sammy_agent.daemon.recording import Recording
from sammy_agent.daemon.service_group import ServiceGroup
from sammy_agent.diagnostics.event_store import lifecycle
from sammy_agent.node import config, instance_id

if TYPE_CHECKING:
    from sammy_agent.daemon.services import Services

LOG = logging.getLogger(__name__)
# The deadlines within one run of a task add up to less than this; one that takes longer is blocked.
TASK_TIMEOUT = 300.0
MAX_NETWORK_CHANGES = 100
CONFIG_RETRY = 5.0


class BuildServices(Protocol):
    """Builds the services that a configuration asks for."""

    def __call__(
        self, loaded: config.AgentConfig, paths: Paths, watcher: ProvisioningWatcher, recording: Recording, /
    ) -> Services:
        """Return them, not started. AgentError: the configuration is not usable."""


def build_services(
    loaded: config.AgentConfig, paths: Paths, watcher: ProvisioningWatcher, recording: Recording
) -> Services:
    """Return the services that talk to the control plane."""
    # requests takes half of our start; systemd, and with it the boot step that starts us, need not wait for it
    from sammy_agent.daemon.services import Services, make_transport

    return Services(loaded, paths, watcher, recording, make_transport(loaded))


def terminate() -> None:
    """End this process as systemd would."""
    os.kill(os.getpid(), signal.SIGTERM)


class Agent:
    """The services of one machine, and what the control socket may ask of them.

    :param build: builds what talks to the control plane.
    :param terminate: ends the process.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        build: BuildServices = build_services,
        terminate: Callable[[], None] = terminate,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._paths, self._build, self._terminate, self._clock = paths, build, terminate, clock
        boot_id = this_boot()
        self._recording = Recording(paths, boot_id)
        self._watcher = ProvisioningWatcher(paths, self._recording.store, boot_id)
        self._watcher.changed.connect(lambda _: self._check_instance())
        self._local = ServiceGroup([*self._recording.services(), self._watcher], clock)
        self._services: Services | None = None
        self._config_problem: Problem | None = None
        self._instance_id: str | None = None
        self._network_changes: list[str] = []
        self._stop = threading.Event()
        self.exit_status = 0
        self.wants_restart = False
        self._starter = threading.Thread(target=self._start, name="start", daemon=True)

    def start(self) -> None:
        """Start, in a thread of its own: it may have to wait for cloud-init."""
        self._starter.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to start; return whether that is so."""
        self._starter.join(timeout)
        return not self._starter.is_alive()

    def verbs(self) -> dict[str, Callable[[str], dict[str, Any]]]:
        """Return what the control socket answers."""
        messages = self._submitting(lambda services: services.add_messages)
        activity = self._submitting(lambda services: services.update_session)
        return {
            "network-changed": self._network_changed,
            "token-changed": self._token_changed,
            "status": self._status,
            "history": self._history,
            "messages": messages,
            "say": messages,  # its former name
            "boot-log": self._submitting(lambda services: services.add_boot_log_entry),
            "session-activity": activity,
            "activity": activity,  # its former name
            "outbox-requeue": self._requeue,
        }

    def is_alive(self) -> bool:
        """Tell whether no task hangs or has ended."""
        for worker in self._workers():
            if not worker.is_alive() or worker.busy_seconds() > TASK_TIMEOUT:
                LOG.critical(
                    "task %s has been blocked for %.0f s; systemd will restart the agent",
                    worker.name,
                    worker.busy_seconds(),
                )
                return False
        return True

    def stop(self) -> None:
        """Stop all services."""
        self._stop.set()
        if self._services is not None:
            self._services.close()
        self._local.close()

    def record_stop_signal(self, number: int) -> None:
        """Record the signal that ends the agent."""
        lifecycle.record_stop(self._recording.recorder, number, self.exit_status, restart=self.wants_restart)

    def _start(self) -> None:
        try:
            self._start_services()
        except Exception:
            # To be restarted is better than to run with another machine's token or with half of the services.
            LOG.exception("the agent cannot start")
            self.exit_status = 1
            self._terminate()

    def _start_services(self) -> None:
        """Start all, and again what could not be started, until nothing is left to do."""
        self._instance_id = instance_id.resolve(self._paths, self._wait)
        saved = self._save_instance()
        self._watcher.set_instance(self._instance_id)
        pauses = [self._local.start(), self._configure()]
        while not self._stop.is_set():
            if not saved:
                pauses.append(CONFIG_RETRY)
            due = [pause for pause in pauses if pause is not None]
            if not due or self._wait(min(due)):
                return
            saved = saved or self._save_instance()
            pauses = [self._local.retry(), self._configure() if self._services is None else self._services.retry()]

    def _wait(self, seconds: float) -> bool:
        """Wait; return whether the agent is to stop."""
        return self._clock.wait(self._stop, seconds)

    def _save_instance(self) -> bool:
        """Save the instance id; a full disk is waited for, while everything else goes on."""
        try:
            instance_id.persist(self._paths, self._instance_id)
        except OSError as error:
            LOG.warning("%s cannot be written: %s", self._paths.instance, error.strerror)
            return False
        return True

    def _configure(self) -> float | None:
        """Start what talks to the control plane; return the seconds until there is more to do, None for nothing."""
        try:
            loaded = config.load(self._paths)
            services = self._build(loaded, self._paths, self._watcher, self._recording) if loaded is not None else None
        except AgentError as error:
            return self._set_config_problem(error.problem)
        except OSError as error:
            return self._set_config_problem(Problem(Code.CONFIG_UNREADABLE, f"{error.filename}: {error.strerror}"))
        self._config_problem = None
        if services is None:
            notify("STATUS=no control plane is configured")
            return None
        self._services = services
        if self._stop.is_set():  # `stop` may not have seen it
            services.close()
            return None
        return services.start()

    def _set_config_problem(self, problem: Problem) -> float:
        if problem != self._config_problem:
            LOG.error("%s", problem)
            notify(f"STATUS={problem.text}")
        self._config_problem = problem
        return CONFIG_RETRY

    def _check_instance(self) -> None:
        """Restart when the machine turns out to be another than it was taken for at the start."""
        found = instance_id.current(self._paths, allow_previous_boot=False)
        if found is None or found == self._instance_id:
            return
        if self._instance_id is None:
            self._instance_id = found
            self._watcher.set_instance(found)
            self._save_instance()
            return
        LOG.warning("instance-id changed to %s: restarting", found)
        self.wants_restart = True
        self._terminate()

    def _workers(self) -> list[Worker]:
        local = [service for service in self._local.started() if isinstance(service, Worker)]
        return [*local, *(self._services.workers() if self._services is not None else ())]

    def _network_changed(self, reason: str) -> dict[str, Any]:
        self._network_changes = [*self._network_changes[-MAX_NETWORK_CHANGES + 1 :], reason]
        reason = reason or "reported over the control socket"
        self._recording.recorder.record(kinds.NETWORK_CHANGED, reason)
        if self._services is not None:
            self._services.network_changed(reason)
        self._watcher.wake()
        return {}

    def _token_changed(self, _: str) -> dict[str, Any]:
        if self._services is not None:
            self._services.token_changed()
        return {}

    def _history(self, _: str) -> dict[str, Any]:
        if self._services is None:
            return {"changes": [], "forgotten": 0}
        return self._services.recent_events.snapshot()

    def _submitting(
        self, method: Callable[[Services], Callable[[dict[str, Any]], None]]
    ) -> Callable[[str], dict[str, Any]]:
        """Return a verb that hands a workspace's JSON object to the services, and answers when they kept it."""

        def submit(text: str) -> dict[str, Any]:
            keep = method(self._configured())
            document = _json(text)
            if not isinstance(document, dict):
                raise AgentError("the request body is not a JSON object")
            keep(document)
            return {}

        return submit

    def _requeue(self, text: str) -> dict[str, Any]:
        """Send dead letters again: all, or the rows whose ids are listed. AgentError."""
        services = self._configured()
        return {"requeued": services.requeue(_json(text or "[]") or None)}

    def _configured(self) -> Services:
        if self._services is None:
            raise AgentError("no control plane is configured", "See sammy status")
        return self._services

    def _status(self, _: str) -> dict[str, Any]:
        services = self._services
        status: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "node_id": None,
            "control_plane_url": None,
            "instance_id": self._instance_id,
            "config_problem": self._config_problem.to_json() if self._config_problem else None,
            **(services.snapshot() if services is not None else {"services": {}}),
            "provisioning": self._watcher.level.summary(),
            **self._recording.snapshot(self._watcher.store_problem),
            "network_changes": self._network_changes,
        }
        status["services"] |= {name: problem.to_json() for name, problem in self._local.problems().items()}
        return status


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AgentError(f"the request body is not valid JSON: {error}") from error
