# SPDX-License-Identifier: Apache-2.0
"""Takes a sample once a minute. One that cannot be written is dropped and counted: the next says nearly as much."""

from __future__ import annotations

import logging
import sqlite3

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.diagnostics.metrics import snapshot
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.diagnostics.metrics.sample import diff_snapshots
from sammy_agent.diagnostics.metrics.snapshot import Snapshot

LOG = logging.getLogger(__name__)
INTERVAL = 60.0


class Sampler(Worker):
    """The task. `problem` says why samples cannot be written now; `lost` how many were dropped."""

    def __init__(self, store: MetricsStore, interval: float = INTERVAL) -> None:
        super().__init__("metrics")
        self._store, self._interval = store, interval
        self._before: Snapshot | None = None
        self.problem = ""
        self.lost = 0

    def run_once(self) -> float:
        """Take one sample and store it."""
        at = clock.now()
        now = snapshot.read(at.boot / 1e6)
        sample = diff_snapshots(self._before, now)
        self._before = now
        try:
            self._store.add(sample, at)
        except (sqlite3.Error, OSError, AgentError) as error:
            self.lost += 1
            if not self.problem:
                LOG.warning("metrics cannot be stored: %s", error)
            self.problem = str(error)
        else:
            self.problem = ""
        spent = (clock.now().boot - at.boot) / 1e6
        return max(0.0, self._interval - spent)
