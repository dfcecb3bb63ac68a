# SPDX-License-Identifier: Apache-2.0
"""Killed, or sent back to the start by `cloud-init clean --reboot`, anywhere: the node ends ready, nothing that was
finished is done again, and no Docker is restarted under containers. The power cut is in test_power_cut.py.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import Base, Machine
from tests.lab.shell import wait_until
from tests.vm.boots import AGAIN, full_machine, state

pytestmark = pytest.mark.needs("root", "nspawn")
# cloud-init writes the key anew, with the mode of the user-data, and the kernel's tables are gone with the boot.
ASKED_ANEW = {"tls-permissions", "firewall", "metadata-block", "agent-install"}
FIRST_BOOT, BY_HAND = "^/usr/bin/python3 /usr/bin/cloud-init modules", "^/usr/bin/python3 /usr/bin/cloud-init single"


def is_at_or_ended(machine: Machine, run: subprocess.Popen[bytes], *steps: str) -> bool:
    return run.poll() is not None or is_at(machine, *steps)


def is_at(machine: Machine, *steps: str) -> bool:
    """Tell whether one of the steps is under way, without a process in the machine: that would be too late."""
    assert machine._init is not None
    try:
        text = Path(f"/proc/{machine._init}/root/run/sammy/state.json").read_text()
    except OSError:
        return False
    record = RunRecord.from_json(text)
    return any(one.status is Status.STARTED for one in record.steps if one.name in steps)


def killed(machine: Machine, pattern: str) -> RunRecord:
    """Kill the module's process alone, as the kernel does when memory is short; return what is told of it."""
    machine.run(["pkill", "--full", "-KILL", pattern])
    wait_until(lambda: machine.run(["pgrep", "--full", pattern], check=False).returncode == 1, "it is dead", 30)
    said = machine.run(["sammy", "status"], check=False)
    assert (said.returncode, "the run was killed" in said.stdout) == (1, True), said.stdout
    return RunRecord.from_json(machine.read("/run/sammy/state.json"))


def completed(*records: RunRecord) -> set[str]:
    return {step.name for record in records for step in record.steps if step.status is Status.COMPLETED}


def test_killed_at_one_step_after_the_other_it_ends_ready(tree: Base, debs: list[Path]) -> None:
    with full_machine("sigkill", tree, debs) as (machine, _sources):
        machine.start()
        wait_until(lambda: is_at(machine, "packages") and machine.exists("/usr/bin/git"), "dpkg unpacks", 300)
        before = [killed(machine, FIRST_BOOT)]
        # What apt had begun goes on by itself, and the next run waits for its lock.
        for steps in (("packages", "docker"), ("docker", "agent-install", "image-prepull", "metadata-block")):
            run = subprocess.Popen([*machine.enter(), *AGAIN], stdout=subprocess.DEVNULL)
            wait_until(partial(is_at_or_ended, machine, run, *steps), f"{steps}", 300)
            if run.poll() is None:
                before.append(killed(machine, BY_HAND))
            run.wait(60)
        machine.run(AGAIN, timeout=300)
        last = state(machine)
        assert (last.outcome, last.reason) == (Outcome.READY, "")
        assert completed(*before) & completed(last) == set(), "finished work was done again"
        assert machine.run(["dpkg", "--audit"]).stdout == ""
        # The same under containers, with work to do for Docker's step.
        image = "docker images -q | head -n 1"
        container = machine.run(["sh", "-c", f"docker run --detach $({image}) sleep 1000"]).stdout.strip()
        about = ["docker", "inspect", container, "-f", "{{.State.StartedAt}} {{.State.Running}}"]
        begun = machine.run(about).stdout
        changed = "SAMMY_DOCKER_DNS=192.0.2.53"
        machine.run(["rm", "-rf", "/opt/sammy/nodejs"])
        run = subprocess.Popen([*machine.enter(), "env", changed, *AGAIN], stdout=subprocess.DEVNULL)
        wait_until(lambda: is_at(machine, "nodejs-install"), "Node.js is unpacked", 60)
        killed(machine, BY_HAND)
        run.wait(60)
        machine.run(["env", changed, *AGAIN], timeout=300)
        assert state(machine).step("docker-restart").reason.startswith("1 containers run")
        assert machine.run(about).stdout == begun


def test_sent_back_to_the_start_in_the_middle_it_ends_ready_and_keeps_what_it_had(tree: Base, debs: list[Path]) -> None:
    with full_machine("clean", tree, debs) as (machine, _sources):
        machine.start()
        wait_until(lambda: is_at(machine, "packages") and "nodejs-install" in done(machine), "Node.js is there", 300)
        first = RunRecord.from_json(machine.read("/run/sammy/state.json"))
        # `clean --reboot` is this and a reboot, which here is off and on.
        machine.run(["cloud-init", "clean"])
        machine.poweroff(120)
        machine.start()
        ended = machine.wait_cloud_init(600)
        last = state(machine)
        assert (last.outcome, last.reason, ended.status) == (Outcome.READY, "", "done")
        assert "nodejs-install" in completed(first) - completed(last)
        assert completed(first) & completed(last) <= ASKED_ANEW
        # And once more, from ready: there is nothing to do at all, but what a boot takes away.
        machine.run(["cloud-init", "clean"])
        machine.poweroff(120)
        machine.start()
        machine.wait_cloud_init(300)
        assert state(machine).outcome is Outcome.READY
        assert completed(state(machine)) == {"tls-permissions"}
        starts = machine.journal("-b", "-u", "docker.service", "JOB_TYPE=start", "JOB_RESULT=done")
        assert len(starts) == 1


def done(machine: Machine) -> set[str]:
    return completed(RunRecord.from_json(machine.read("/run/sammy/state.json")))
