# SPDX-License-Identifier: Apache-2.0
"""Killed in the middle, again and again, and started again: the node ends ready and no attempt is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import Base, LabError, Machine
from tests.lab.shell import wait_until
from tests.vm.boots import full_machine, state

pytestmark = pytest.mark.needs("root", "nspawn")


def step_is(machine: Machine, name: str, *statuses: Status) -> bool:
    try:
        return state(machine).step(name).status in statuses
    except (LabError, ValueError):
        return False


def test_killed_in_the_middle_it_converges_to_ready(tree: Base, debs: list[Path]) -> None:
    with full_machine("cut", tree, debs) as (machine, _sources):
        moments = {
            "apt has begun": lambda: step_is(machine, "packages", Status.STARTED),
            "dpkg unpacks": lambda: machine.exists("/usr/bin/git") or machine.exists("/usr/bin/jq"),
            "the image is pulled": lambda: step_is(machine, "image-prepull", Status.STARTED, Status.COMPLETED),
        }
        for name, come in moments.items():
            machine.start()
            wait_until(come, name, 300)
            machine.kill()
        machine.start()
        ended = machine.wait_cloud_init(600)
        record = state(machine)
        assert (record.outcome, record.reason) == (Outcome.READY, ""), ended.text
        assert (ended.status, ended.returncode) == ("done", 0)
        assert machine.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout == ""
        assert machine.run(["dpkg", "--audit"]).stdout == ""
        stored = machine.run(["ls", "/var/lib/sammy/runs"]).stdout.split()
        records = [RunRecord.from_json(machine.read(f"/var/lib/sammy/runs/{name}")) for name in sorted(stored)]
        for one in records:
            print(one.run_id, one.outcome.value, {step.name: step.status.value for step in one.steps})
        assert records[-1].run_id == record.run_id
        # What an attempt finished, the last one did not do again.
        finished = {step.name for one in records[:-1] for step in one.steps if step.status is Status.COMPLETED}
        again = {step.name for step in record.steps if step.status is Status.COMPLETED}
        assert finished & again <= {"firewall", "metadata-block", "agent-install"}
