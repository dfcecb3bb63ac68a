# SPDX-License-Identifier: Apache-2.0
"""A stock image that gets our package during its first boot, as docs/stock-image.md has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, Status
from tests.lab import Base, Machine, Network, Sources
from tests.vm.boots import AGAIN, BARE, state

pytestmark = pytest.mark.needs("root", "nspawn")


def test_the_module_runs_in_the_first_boot_and_by_itself_in_the_second(tree: Base, debs: list[Path]) -> None:
    with Network("stock") as network, Sources(network, tree, debs=debs, packages=()) as sources:
        apt = sources.apt
        entry = f"deb [signed-by=/etc/apt/keyrings/sammy.asc] {apt['uri']} {apt['suite']} {apt['components'][0]}\n"
        sammy = {**BARE, "agent": {"source": "apt"}, "node_id": "node-7"}
        user_data = {
            "write_files": [
                {"path": "/etc/apt/keyrings/sammy.asc", "content": apt["key"]},
                {"path": "/etc/apt/sources.list.d/sammy.list", "content": entry},
                {
                    "path": "/etc/cloud/cloud.cfg.d/96-sammy-node.cfg",
                    "permissions": "0600",
                    "content": json.dumps({"sammy": sammy}),
                },
            ],
            "packages": ["cloud-init-sammy"],
            "runcmd": [AGAIN],
        }
        with Machine("stock", tree, user_data, network=network) as machine:
            machine.start()
            ended = machine.wait_cloud_init(300)
            assert (ended.status, ended.returncode) == ("done", 0), ended.text + machine.console()
            first = state(machine)
            assert (first.outcome, first.reason) == (Outcome.READY, "")
            assert first.step("agent-install").status is Status.COMPLETED
            machine.poweroff()
            machine.start()
            assert machine.wait_cloud_init(300).status == "done"
            second = state(machine)
            assert second.outcome is Outcome.READY
            assert [step.name for step in second.steps if step.status is not Status.SKIPPED] == []
            assert "config-sammy" in machine.run(["cloud-init", "analyze", "show"]).stdout
