# SPDX-License-Identifier: Apache-2.0
"""What the agent takes from the state file, also when nobody writes it any more."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cc_sammy.common.run_records import process_identity
from cc_sammy.contract.run_record import RunRecord, Status, StepRecord
from sammy_agent.base.runtime.clock import this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher
from sammy_agent.diagnostics.event_store.event_store import EventStore


def test_a_run_whose_process_is_killed_is_told_as_failed_though_its_file_does_not_change(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    Path(paths.state).parent.mkdir(parents=True)
    changes: list[tuple[str, str]] = []
    with subprocess.Popen(["sleep", "1000"]) as runs:
        record = RunRecord("20260101T000000-a", this_boot(), "i", 1.0, "2026-01-01T00:00:00+00:00")
        record.steps, record.writer = [StepRecord("packages", Status.STARTED)], process_identity(runs.pid)
        Path(paths.state).write_text(record.to_json())
        watcher = ProvisioningWatcher(paths, EventStore(f"{tmp_path}/events.db", boot_id=this_boot()), this_boot())

        watcher.changed.connect(lambda change: changes.append((change.before.phase, change.now.phase)))
        watcher.run_once()
        assert (watcher.level.phase, changes) == ("provisioning", [])
        runs.kill()
    watcher.run_once()
    assert changes == [("provisioning", "ended")]
    told = watcher.level.summary()
    assert told["outcome"] == "failed"
    assert told["reason"] == "the run was killed before its end; not done: packages"
    assert not watcher.level.is_reportable_as_ready
