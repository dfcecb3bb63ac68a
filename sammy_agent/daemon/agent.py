# SPDX-License-Identifier: Apache-2.0
"""The agent's process: it wires the parts and keeps systemd and the control socket served.

Ready to systemd when the control socket listens, alive to its watchdog only while every duty takes its turns. All
duties are threads that may be killed at any moment: what matters is on disk before anyone relies on it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.runtime.clock import this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.sd_notify import notify
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher
from sammy_agent.daemon.recording import Recording
from sammy_agent.diagnostics.event_store import lifecycle
from sammy_agent.node import config, instance_id

if TYPE_CHECKING:
    from sammy_agent.daemon.services import Reporting

LOG = logging.getLogger(__name__)
# A turn's own deadlines add up to less than this; one that takes longer hangs, and systemd is to restart us.
LONGEST_TURN = 300.0
KEPT_CHANGES = 100
CONFIG_RETRY = 5.0


class Agent:
    """The parts, and what the control socket may ask of them. Its duties begin once the machine is known."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._recording = Recording(paths, this_boot())
        self._watcher: ProvisioningWatcher | None = None
        self._reporting: Reporting | None = None
        self._config_problem: Problem | None = None
        self._instance_id: str | None = None
        self._changes: list[str] = []
        self._stop = threading.Event()
        self.exit_status = 0
        self.wants_restart = False
        self._beginning = threading.Thread(target=self._begin, name="begin", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own: it may have to wait for cloud-init."""
        self._beginning.start()

    def verbs(self) -> dict[str, Any]:
        """Return what the control socket answers."""
        return {
            "network-changed": self._network_changed,
            "token-changed": self._token_changed,
            "status": self._status,
            "history": lambda _: (
                self._reporting.history.snapshot() if self._reporting else {"changes": [], "forgotten": 0}
            ),
            "say": lambda words: self._keep(words, lambda reporting: reporting.say),
            "boot-log": lambda words: self._keep(words, lambda reporting: reporting.log),
            "activity": lambda words: self._keep(words, lambda reporting: reporting.activity.update),
            "outbox-requeue": self._requeue,
        }

    def is_alive(self) -> bool:
        """Tell whether every duty takes its turns."""
        for worker in self._workers():
            if not worker.is_alive() or worker.busy_seconds() > LONGEST_TURN:
                LOG.critical("%s hangs for %.0f s", worker.name, worker.busy_seconds())
                return False
        return True

    def stop(self) -> None:
        """End all duties."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.stop()
        if self._reporting is not None:
            self._reporting.stop()
        self._recording.stop()

    def told_to_stop(self, number: int) -> None:
        """Take the signal that ends the agent."""
        lifecycle.record_stop(self._recording.recorder, number, self.exit_status, restart=self.wants_restart)

    def _begin(self) -> None:
        try:
            self._begin_duties()
        except Exception:
            # Not to run, and be started again, is better than to live with another machine's token or half the duties.
            LOG.exception("the agent cannot begin")
            self.exit_status = 1
            os.kill(os.getpid(), signal.SIGTERM)

    def _begin_duties(self) -> None:
        self._instance_id = instance_id.settle(self._paths, self._stop.wait)
        remembered = self._remember_instance()
        self._recording.begin()
        watcher = ProvisioningWatcher(self._paths, self._recording.store)
        watcher.on_change = lambda before, now: self._check_instance()
        watcher.of_instance(self._instance_id)
        watcher.start()
        self._watcher = watcher
        while not self._stop.is_set() and not self._begin_reporting(watcher):
            self._stop.wait(CONFIG_RETRY)
        while not self._stop.is_set() and not remembered:
            self._stop.wait(CONFIG_RETRY)
            remembered = self._remember_instance()

    def _remember_instance(self) -> bool:
        """Keep the instance id; a full disk is waited for, while everything else goes on."""
        try:
            instance_id.remember(self._paths, self._instance_id)
        except OSError as error:
            LOG.warning("%s cannot be written: %s", self._paths.instance, error.strerror)
            return False
        return True

    def _begin_reporting(self, watcher: ProvisioningWatcher) -> bool:
        """Begin to talk to the control plane; return False when the configuration or a file of it is not usable."""
        # requests takes half of our start; systemd, and with it the boot step that starts us, need not wait for it
        from sammy_agent.daemon.services import Reporting

        problem: Problem | None = None
        try:
            loaded = config.load(self._paths)
            reporting = Reporting(loaded, self._paths, watcher, self._recording) if loaded is not None else None
        except AgentError as error:
            problem = error.problem
        except OSError as error:
            problem = Problem(Code.CONFIG_UNREADABLE, f"{error.filename}: {error.strerror}")
        if problem is not None:
            if problem != self._config_problem:
                LOG.error("%s", problem)
                notify(f"STATUS={problem.text}")
            self._config_problem = problem
            return False
        self._config_problem = None
        if reporting is None:
            notify("STATUS=no control plane is configured")
            return True
        for worker in reporting.workers:
            worker.start()
        self._reporting = reporting
        return True

    def _check_instance(self) -> None:
        """Begin anew when the machine turns out to be another than it was taken for at the start."""
        found = instance_id.current(self._paths, may_be_old=False)
        if found is None or found == self._instance_id:
            return
        if self._instance_id is None:
            self._instance_id = found
            if self._watcher is not None:
                self._watcher.of_instance(found)
            self._remember_instance()
            return
        LOG.warning("instance-id is now %s: the agent begins anew", found)
        self.wants_restart = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _workers(self) -> tuple[Worker, ...]:
        if self._watcher is None:
            return ()
        return (self._watcher, *(self._reporting.workers if self._reporting else ()))

    def _network_changed(self, reason: str) -> dict[str, Any]:
        self._changes = [*self._changes[-KEPT_CHANGES + 1 :], reason]
        self._recording.recorder.record(kinds.NETWORK_CHANGED, reason or "told by the control socket")
        if self._reporting is not None:
            self._reporting.network_changed(reason or "told by the control socket")
        if self._watcher is not None:
            self._watcher.wake()
        return {}

    def _token_changed(self, _: str) -> dict[str, Any]:
        if self._reporting is not None:
            self._reporting.token_changed()
        return {}

    def _keep(self, words: str, verb: Callable[[Reporting], Callable[[dict[str, Any]], None]]) -> dict[str, Any]:
        """Let a reporter take what a workspace says, and answer when it did. AgentError."""
        if self._reporting is None:
            raise AgentError("there is no control plane to tell it", "See sammy status")
        try:
            document: Any = json.loads(words)
        except ValueError as error:
            raise AgentError(f"what follows the verb is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise AgentError("what follows the verb is no JSON object")
        verb(self._reporting)(document)
        return {}

    def _requeue(self, words: str) -> dict[str, Any]:
        """Send again what was set aside: all, or the rows whose ids are listed. AgentError."""
        if self._reporting is None:
            raise AgentError("there is no control plane to send it to", "See sammy status")
        ids: Any = json.loads(words or "[]")
        return {"requeued": self._reporting.delivery.outbox.requeue(ids or None)}

    def _status(self, _: str) -> dict[str, Any]:
        watcher, reporting = self._watcher, self._reporting
        return {
            "version": __version__,
            "pid": os.getpid(),
            "node_id": None,
            "control_plane_url": None,
            "instance_id": self._instance_id,
            "config_problem": self._config_problem.to_json() if self._config_problem else None,
            **(reporting.snapshot() if reporting else {}),
            "provisioning": watcher.level.summary() if watcher else {"phase": "waiting"},
            **self._recording.snapshot(watcher.store_problem if watcher else ""),
            "network_changes": self._changes,
        }
