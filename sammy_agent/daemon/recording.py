# SPDX-License-Identifier: Apache-2.0
"""What the agent records of its own life and of the machine: two stores, and the tasks that write them.

It outlives every configuration and every control plane, and no other service depends on it: what the disk does not
take is counted, and the agent goes on.
"""

from __future__ import annotations

from typing import Any

from sammy_agent.base.events import kinds
from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.service_group import Hooks, Service
from sammy_agent.diagnostics.event_store import lifecycle
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.recorder import Recorder
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.diagnostics.metrics.sampler import Sampler


class Recording:
    """The event store with its recorder, the metrics with their sampler. `boot_id` is the present boot's."""

    def __init__(self, paths: Paths, boot_id: str) -> None:
        self._boot_id = boot_id
        self._created_at, self._is_start_recorded = clock.now(), False
        self.store = EventStore(paths.events, boot_id=boot_id)
        self.recorder = Recorder(self.store, boot_id)
        self.metrics = MetricsStore(paths.metrics, boot_id=boot_id)
        self._sampler = Sampler(self.metrics)
        for store in (self.store, self.metrics):
            store.on_corruption.connect(lambda message: self.recorder.record(kinds.STORE_DAMAGED, message))

    def services(self) -> list[Service]:
        """Return what is to be started once it is known that the stores are this machine's.

        What was recorded before is written then; at the stop what waits is written, for a bounded time.
        """
        return [Hooks("recorder", self._start_recorder, self.recorder.close), self._sampler]

    def _start_recorder(self) -> None:
        if not self._is_start_recorded:
            lifecycle.record_start(self.recorder, self.store, self._created_at, self._boot_id)
            self._is_start_recorded = True
        self.recorder.start()

    def snapshot(self, problem: str) -> dict[str, Any]:
        """Return the `store` and `metrics` parts of the socket's status; `problem`: what other writers met."""
        return {
            "store": {
                "problem": problem or self.recorder.problem,
                "lost": self.recorder.lost,
                "damage": self.store.corruption,
            },
            "metrics": {"problem": self._sampler.problem, "lost": self._sampler.lost},
        }
