# SPDX-License-Identifier: Apache-2.0
"""The same boot on Debian 13: cloud-init 25 calls with keywords, in one process, and checks user-data by its schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, Status
from tests.lab import debian
from tests.vm.boots import NO_NODEJS, STEPS, Boot, full_boot, state

pytestmark = pytest.mark.needs("root", "nspawn")


@pytest.fixture(scope="module")
def trixie(debs: list[Path]) -> Iterator[Boot]:
    with full_boot("trixie", debian("trixie"), debs) as boot:
        yield boot


def test_it_is_done_not_degraded_and_ready(trixie: Boot) -> None:
    assert (trixie.ended.status, trixie.ended.returncode) == ("done", 0), trixie.ended.text
    assert "extended_status: done" in trixie.ended.text
    assert "recoverable_errors: {}" in trixie.ended.text
    assert (trixie.record.outcome, trixie.record.reason) == (Outcome.READY, "")
    assert trixie.machine.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout == ""


def test_nothing_of_ours_is_deprecated_there(trixie: Boot) -> None:
    log = trixie.machine.read("/var/log/cloud-init.log")
    assert [line for line in log.splitlines() if "DEPRECATED" in line and "sammy" in line] == []


def test_analyze_lists_each_step(trixie: Boot) -> None:
    shown = trixie.machine.run(["cloud-init", "analyze", "show"]).stdout
    ours = shown[shown.index("Starting stage: modules-final/config-sammy") :]
    assert [step for step in STEPS if f"{step} completed" not in ours and f"{step} skipped" not in ours] == []


def test_the_second_boot_does_nothing_twice(trixie: Boot) -> None:
    trixie.machine.poweroff()
    trixie.machine.start()
    assert trixie.machine.wait_cloud_init().status == "done"
    assert [step.name for step in state(trixie.machine).steps if step.status is not Status.SKIPPED] == []


def test_a_degraded_node_is_degraded_to_cloud_init_too(trixie: Boot) -> None:
    trixie.machine.poweroff()
    trixie.machine.write("/etc/default/sammy", NO_NODEJS)
    trixie.machine.start()
    ended = trixie.machine.wait_cloud_init()
    assert state(trixie.machine).outcome is Outcome.DEGRADED
    assert (ended.status, ended.returncode) == ("done", 2), ended.text
    assert "extended_status: degraded done" in ended.text
    assert "node ready but degraded: nodejs-install: could not download the file" in ended.text
