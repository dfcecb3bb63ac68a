# SPDX-License-Identifier: Apache-2.0
"""What only a virtual machine can show: its own kernel, a power cut on a real file system, a wrong clock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import LabError, Sources
from tests.lab.control_plane import ControlPlane, control_plane
from tests.lab.disk import disk, tree
from tests.lab.network import Loopback
from tests.lab.qemu import VirtualMachine
from tests.lab.shell import wait_until
from tests.vm.nodes import NODE

pytestmark = pytest.mark.needs("root", "qemu")


@contextlib.contextmanager
def virtual_node(
    name: str, debs: list[Path], *, baked: bool = False, bootcmd: Sequence[str] = ()
) -> Iterator[tuple[VirtualMachine, ControlPlane]]:
    """Yield a node, not powered on; a baked image has the agent too, and needs no apt."""
    image = [deb for deb in debs if baked or not deb.name.startswith("sammy-agent")]
    with contextlib.ExitStack() as stack:
        network = Loopback(name)
        sources = stack.enter_context(Sources(network, tree(), debs=debs, packages=()))
        plane = stack.enter_context(control_plane(network, sources.directory))
        # Swap is the kernel's: a container would have its host's.
        sammy = {**sources.user_config(), "firewall": {"allow": [f"{network.edge}/32"]}, "swap": {"size_mb": 64}}
        if baked:
            sammy |= {"agent": {"source": "installed"}, "packages": {}}
        user_data = {**yaml.safe_load(plane.user_data(NODE, sammy, None)), "bootcmd": list(bootcmd)}
        machine = VirtualMachine(name, disk(image), user_data)
        yield stack.enter_context(machine), plane


def running_and_healthy(plane: ControlPlane) -> bool:
    node = plane.node(NODE)
    return (node.get("status"), node.get("healthStatus")) == ("running", "healthy")


def records(machine: VirtualMachine) -> list[RunRecord]:
    names = machine.run(["ls", "/var/lib/sammy/runs"], check=False).stdout.split()
    return [RunRecord.from_json(machine.read(f"/var/lib/sammy/runs/{name}")) for name in sorted(names)]


def has_ended(machine: VirtualMachine, step: str) -> bool:
    with contextlib.suppress(LabError, ValueError, KeyError):
        return any(record.step(step).status is Status.COMPLETED for record in records(machine))
    return False


def test_a_power_cut_in_the_middle_ends_ready_without_doing_finished_work_again(debs: list[Path]) -> None:
    with virtual_node("cut", debs) as (machine, plane):
        machine.start()
        wait_until(lambda: has_ended(machine, "nodejs-install"), "Node.js is installed", 600)
        machine.run(["sync"])
        machine.kill()
        assert plane.node(NODE)["status"] != "running"
        machine.start()
        ended = machine.wait_cloud_init(900)
        assert (ended.status, ended.returncode) == ("done", 0), ended.text
        wait_until(lambda: running_and_healthy(plane), "running and healthy", 180)
        first, *_, last = records(machine)
        assert (first.outcome, last.outcome) == (Outcome.RUNNING, Outcome.READY)
        assert first.step("nodejs-install").duration_ms is not None, "the first attempt's timings are still there"
        finished = {step.name for step in first.steps if step.status is Status.COMPLETED}
        again = {step.name for step in last.steps if step.status is Status.COMPLETED}
        assert "nodejs-install" in finished - again
        assert last.step("swap").status in (Status.COMPLETED, Status.SKIPPED)
        (used,) = machine.read("/proc/swaps").splitlines()[1:]
        assert used.split()[:3] == ["/swapfile", "file", "65532"]  # KiB, but for the page that says what it is
        assert machine.run(["systemctl", "--failed", "--no-legend", "--plain"]).stdout == ""


def test_a_clock_a_year_off_is_named_and_the_node_is_ready_when_it_is_right(debs: list[Path]) -> None:
    # In cloud-init's first stage: systemd would set a clock right that is behind its own files at power-on. The image
    # is baked, for apt refuses lists that are "not valid yet".
    with virtual_node("clock", debs, baked=True, bootcmd=["date -s 2025-01-01"]) as (machine, plane):
        machine.start()
        machine.wait_cloud_init(900)
        wait_until(lambda: "clock" in said(machine), "sammy status names the clock", 120)
        assert plane.node(NODE)["status"] != "running"
        machine.set_clock()
        wait_until(lambda: running_and_healthy(plane), "running and healthy", 300)


def said(machine: VirtualMachine) -> str:
    return machine.run(["sammy", "status"], check=False).stdout
