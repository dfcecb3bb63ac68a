# SPDX-License-Identifier: Apache-2.0
"""journald restarted, hung or flooded while steps run: no step waits for it, and the files hold everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import Base, Machine
from tests.vm.boots import AGAIN, BARE, KEY, Boot, bare_boot, state

pytestmark = pytest.mark.needs("root", "nspawn")
LATE = 500.0  # ms that no step may be later
WORKING = ("firewall", "tls-permissions", "metadata-block")


@pytest.fixture(scope="module")
def bare(tree: Base, debs: list[Path]) -> Iterator[Boot]:
    key = {"path": KEY, "content": "a private key\n", "permissions": "0644"}
    with bare_boot("journald", tree, debs, BARE, write_files=[key]) as boot:
        assert boot.ended.status == "done", boot.ended.text
        yield boot


def journald(machine: Machine) -> str:
    return machine.run(["systemctl", "show", "systemd-journald", "--property=MainPID", "--value"]).stdout.strip()


@contextlib.contextmanager
def hung(machine: Machine) -> Iterator[None]:
    pid = journald(machine)
    machine.run(["kill", "-STOP", pid])
    try:
        yield
    finally:
        machine.run(["kill", "-CONT", pid])


@contextlib.contextmanager
def flooded(machine: Machine) -> Iterator[None]:
    machine.run(["systemd-run", "--quiet", "--unit=flood", "yes", "a line of another program " * 4])
    try:
        yield
    finally:
        machine.run(["systemctl", "stop", "flood"])


@contextlib.contextmanager
def restarted(machine: Machine) -> Iterator[None]:
    before = journald(machine)
    # three: systemd gives a unit up after five starts in 10 s
    loop = "for _ in 1 2 3; do sleep 0.05; systemctl restart systemd-journald; done"
    machine.run(["systemctl", "reset-failed", "systemd-journald"])
    machine.run(["systemd-run", "--quiet", "--collect", "--unit=restarts", "sh", "-c", loop])
    yield
    machine.run(["sh", "-c", "while systemctl is-active --quiet restarts; do sleep 0.1; done"])
    assert journald(machine) != before, "it was not restarted, so the test showed nothing"


def run_with_work_to_do(machine: Machine) -> RunRecord:
    """Undo what three steps did, run the module, return its record."""
    machine.run(["sh", "-ec", f"nft delete table inet sammy; nft delete table inet sammy_metadata; chmod 644 {KEY}"])
    machine.run(AGAIN, timeout=120)
    record = state(machine)
    assert [record.step(name).status for name in WORKING] == [Status.COMPLETED] * 3
    return record


@pytest.mark.parametrize("disturbance", [hung, flooded, restarted], ids=lambda one: one.__name__)
def test_no_step_is_late_and_the_files_are_complete(disturbance, bare: Boot) -> None:  # type: ignore[no-untyped-def]
    machine = bare.machine
    quiet = run_with_work_to_do(machine)
    with disturbance(machine):
        disturbed = run_with_work_to_do(machine)
    assert disturbed.run_id != quiet.run_id
    late = {
        step.name: round((step.duration_ms or 0) - (quiet.step(step.name).duration_ms or 0)) for step in disturbed.steps
    }
    print(f"{disturbance.__name__}: all {quiet.duration_ms} ms quiet, {disturbed.duration_ms} ms; later by {late} ms")
    assert {name: ms for name, ms in late.items() if ms > LATE} == {}
    assert disturbed.outcome is Outcome.READY
    assert all(step.status in (Status.COMPLETED, Status.SKIPPED) for step in disturbed.steps)
    kept = RunRecord.from_json(machine.read(f"/var/lib/sammy/runs/{disturbed.run_id}.json"))
    assert kept == disturbed


def test_a_well_journald_has_lost_nothing(bare: Boot) -> None:
    record = run_with_work_to_do(bare.machine)
    events = bare.machine.journal("-t", "sammy", f"SAMMY_RUN_ID={record.run_id}", "SAMMY_EVENT=provision.all")
    assert len(events) == 1
    assert record.journal_lost == 0
