# SPDX-License-Identifier: Apache-2.0
"""Ready, degraded and failed, each told by everything that tells it: the journal, cloud-init, the state file, the
heartbeat, `sammy status` and its exit status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Base
from tests.vm.boots import NO_NODEJS, state
from tests.vm.nodes import Node, node

pytestmark = pytest.mark.needs("root", "nspawn")

# Outcome -> what makes it so, the reason's words, the exit status, and the journal's priority.
MADE = {
    "ready": ("", "", 0, "5"),
    "degraded": (NO_NODEJS, "nodejs-install: could not download the file", 0, "4"),
    "failed": ("SAMMY_DOCKER_SOURCE=installed\n", "docker: there is no dockerd on this machine", 1, "3"),
}


@pytest.fixture(scope="module")
def one(tree: Base, debs: list[Path]) -> Iterator[Node]:
    with node("truth", tree, debs) as made:
        yield made


@pytest.mark.parametrize("outcome", MADE)
def test_everything_that_tells_the_outcome_tells_the_same(outcome: str, one: Node) -> None:
    variables, reason, status, priority = MADE[outcome]
    machine = one.machine
    if machine.alive:
        machine.poweroff()
    machine.write("/etc/default/sammy", variables)
    machine.start()
    ended = machine.wait_cloud_init(300)
    record = state(machine)
    assert record.outcome.value == outcome and reason in record.reason
    (event,) = machine.journal("-t", "sammy", f"SAMMY_RUN_ID={record.run_id}", "SAMMY_EVENT=provision.all")
    assert event["MESSAGE"].startswith(f"provisioning ended: {outcome}") and reason in event["MESSAGE"]
    assert event["PRIORITY"] == priority
    assert ended.status == ("error" if outcome == "failed" else "done")
    if outcome == "failed":
        assert reason in ended.text
    if outcome == "degraded":
        assert f"node ready but degraded: {reason}" in machine.read("/var/log/cloud-init.log")
    said = machine.run(["sammy", "status"], check=False)
    assert said.stdout.startswith(f"node is {outcome}") and reason.partition(": ")[2] in said.stdout
    stored = json.loads(machine.read(f"/var/lib/sammy/runs/{record.run_id}.json"))
    assert (stored["outcome"], reason in stored["reason"]) == (outcome, True)
    one.wait(
        f"beats {outcome}",
        lambda seen: (
            seen.get("provisioning", {}).get("outcome") == outcome and reason in seen["provisioning"].get("reason", "")
        ),
        60,
    )
    # In contact by now, so the exit status is the outcome's.
    assert machine.run(["sammy", "status"], check=False).returncode == status
