# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status, StepRecord
from sammy_agent.control_plane import node_schema, workspace_schema
from sammy_agent.daemon.outbox.channels import ERRORS, NODE_BOOT_LOG, Lane, Priority, QueuedRow
from sammy_agent.daemon.outbox.queue import Outbox
from sammy_agent.daemon.reporters import boot_log, errors
from sammy_agent.node.provisioning import ProvisioningState

RUN = "20261124T000000-aa"


def record(outcome: Outcome = Outcome.RUNNING) -> RunRecord:
    made = RunRecord(RUN, "b", "i", 10.0, "2026-11-24T00:00:00.000+00:00", outcome)
    made.steps = [
        StepRecord("packages", Status.COMPLETED, False, 10.0, 1500.0),
        StepRecord("nodejs-install", Status.FAILED, True, 10.5, 250.0, "x" * 5000, attempt=2),
        StepRecord("tls-permissions", Status.SKIPPED, True, reason="no key"),
        StepRecord("image-prepull", Status.STARTED, False, 12.0),
        StepRecord("docker"),
    ]
    return made


def test_entries_are_in_the_order_they_happened_and_pass_our_door() -> None:
    made = record(Outcome.FAILED)
    made.reason, made.duration_ms = "nodejs-install: no", 3000.0
    rows = list(boot_log.rows(made))
    body = NODE_BOOT_LOG.encode([QueuedRow(n, row.id, row.body, len(row.body), "") for n, row in enumerate(rows)])
    entries = workspace_schema.parse_boot_log_entries(body)
    assert [(entry["step"], entry["status"], entry["timestamp"][17:23]) for entry in entries] == [
        ("packages", "started", "00.000"),
        ("tls-permissions", "skipped", "00.000"),
        ("nodejs-install", "started", "00.500"),
        ("nodejs-install", "failed", "00.750"),
        ("packages", "completed", "01.500"),
        ("image-prepull", "started", "02.000"),
        ("all", "failed", "03.000"),
    ]
    assert json.loads(entries[3]["detail"]) == {"attempt": 2, "durationMs": 250.0}
    assert 1900 < len(entries[3]["message"]) <= 2000
    assert len({row.id for row in rows}) == len(rows)
    assert {row.id.split("/")[1] for row in rows if row.priority is Priority.HIGH} == {"nodejs-install", "all"}


def test_each_entry_is_put_once_and_again_when_the_disk_refused_it(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox, level = Outbox(str(path)), ProvisioningState(record())
    reporter = boot_log.BootLogReporter("n1", lambda: level, outbox)
    path.mkdir()
    assert reporter.run_once(), "a pause, for the disk takes nothing"
    path.rmdir()
    assert reporter.run_once() is None and outbox.totals()["rows"] == 6
    assert reporter.run_once() is None and outbox.totals()["rows"] == 6
    level = ProvisioningState(record(Outcome.READY))
    reporter.run_once()
    assert [row.id for row in outbox.head(Lane("boot-log", "n1"), 50)][-1] == f"{RUN}/all/ready"
    outbox.close()


@pytest.mark.parametrize("wrong", [{"status": "skipped"}, {"id": ""}, {"step": 3}, {"timestamp": None}])
def test_a_workspaces_entry_that_no_door_takes_is_refused_here(tmp_path: Path, wrong: dict[str, object]) -> None:
    outbox = Outbox(str(tmp_path / "o.db"))
    entry = {"id": "1", "step": "clone", "status": "completed", "timestamp": "2026-01-01T00:00:00Z", "message": "ok"}
    with pytest.raises(boot_log.EntryInvalid):
        boot_log.add_entry(outbox, "w1", {**entry, **wrong})
    boot_log.add_entry(outbox, "w1", entry)
    (row,) = outbox.head(Lane("workspace-boot-log", "w1"), 10)
    assert workspace_schema.parse_boot_log_entry(row.body.encode())["step"] == "clone"
    outbox.close()


def test_an_incident_always_fits_the_wire() -> None:
    made = record(Outcome.FAILED)
    made.reason = "\x00" * 5000  # six bytes each in JSON
    made.steps = [StepRecord(f"s{n}", Status.FAILED, True, 1.0, 1.0, "\x00" * 2000) for n in range(12)]
    row = errors.row(errors.incident(made))
    body = ERRORS.encode([QueuedRow(1, row.id, row.body, len(row.body.encode()), "")])
    (kept,) = node_schema.parse_errors(body)
    assert kept["context"]["truncated"] and kept["incidentId"] == row.id
    lone = errors.row({"incidentId": row.id, "message": "half \ud834"})
    assert json.loads(lone.body)["message"] == "half \ufffd"
