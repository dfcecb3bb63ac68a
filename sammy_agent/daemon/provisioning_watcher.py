# SPDX-License-Identifier: Apache-2.0
"""Polls the state of this boot's provisioning run, keeps it and the event store up to date, and emits what changed."""

from __future__ import annotations

import logging
import os
import sqlite3
from typing import NamedTuple

from cc_sammy.common import run_records
from cc_sammy.contract.run_record import Outcome
from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.node.provisioning import ProvisioningState, read

LOG = logging.getLogger(__name__)


WHILE_RUNNING, WHEN_ENDED, STORE_RETRY = 0.5, 5.0, 10.0


class StateChange(NamedTuple):
    """The state before a change and after it."""

    before: ProvisioningState
    now: ProvisioningState


class ProvisioningWatcher(Worker):
    """Polls the run record; `level` is its newest state."""

    def __init__(self, paths: Paths, store: EventStore, boot_id: str) -> None:
        super().__init__("provisioning")
        self._paths, self._store, self._boot_id = paths, store, boot_id
        self._seen: tuple[int, ...] | None = None
        self._stored: set[str] = set()
        self._store_corruptions = 0
        self._to_store = True
        self._level: ProvisioningState | None = None
        self.changed: Signal[StateChange] = Signal()
        self.stored: Signal[None] = Signal()  # run records are in the event store
        self.store_problem = ""
        # whose stored runs are ours; None takes none but this boot's
        self.instance_id: str | None = None

    @property
    def level(self) -> ProvisioningState:
        """Return the newest state that is known; the first is read when it is asked for."""
        if self._level is None:
            self._level = read(self._paths, self._boot_id)
        return self._level

    def run_once(self) -> float:
        """Poll once; again soon while a run is in progress."""
        # A run that is killed changes no file: its state must be asked for.
        if self._changed() or self.level.phase == "provisioning":
            before = self.level
            self._level = read(self._paths, self._boot_id)
            self._to_store = True
            if before != self._level:
                self.changed.emit(StateChange(before, self._level))
        if self._store.corruptions != self._store_corruptions:  # the records are all that is left of the runs
            self._store_corruptions, self._to_store = self._store.corruptions, True
            self._stored.clear()
        stored = not self._to_store or self._feed()
        pause = WHEN_ENDED if self.level.phase == "ended" else WHILE_RUNNING
        return pause if stored else max(pause, STORE_RETRY)

    def set_instance(self, instance_id: str | None) -> None:
        """Set whose stored runs are ours."""
        if instance_id != self.instance_id:
            self.instance_id = instance_id
            self._to_store = True

    def _changed(self) -> bool:
        try:
            status = os.stat(self._paths.state)
            now: tuple[int, ...] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            now = ()
        changed, self._seen = now != self._seen, now
        return changed

    def _feed(self) -> bool:
        """Put run records into the store; a full disk is logged and retried, and stops nothing else."""
        try:
            if self.level.record is not None:
                self._store.add_run(self.level.record)
            for path in run_records.stored_runs(self._paths.runs):
                self._feed_stored(path)
        except (sqlite3.Error, OSError, AgentError) as error:
            if not self.store_problem:
                LOG.warning("the event store cannot be written: %s", error)
            self.store_problem = str(error)
            return False
        self._to_store, self.store_problem = False, ""
        self.stored.emit(None)
        return True

    def _feed_stored(self, path: str) -> None:
        if path in self._stored:
            return
        try:
            record = run_records.load(path)
            if record is None or record.instance_id != self.instance_id:
                return  # a copied disk brings the runs of another machine
            if self._store.add_run(record) and record.outcome is not Outcome.RUNNING:
                self._stored.add(path)
        except (ValueError, KeyError, TypeError) as error:
            LOG.warning("skipping corrupt run record %s: %s", path, error)
            self._stored.add(path)
