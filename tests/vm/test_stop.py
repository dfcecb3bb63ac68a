# SPDX-License-Identifier: Apache-2.0
"""A run stopped from outside: nothing of it is left, the truth is told, and the next run goes on where it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, Status
from tests.lab import Base
from tests.lab.shell import wait_until
from tests.vm.boots import AGAIN, BARE, Boot, bare_boot, state

pytestmark = pytest.mark.needs("root", "nspawn")
SHIM = "/usr/local/sbin/apt-get"
# A command whose own child would go on without it.
HANGING = "#!/bin/sh\nsleep 1234 &\necho 'apt waits for something'\nwait\n"
LEFT = ["pgrep", "--full", "^sleep 1234"]


def test_sigterm_in_the_middle_leaves_no_process_and_the_next_run_heals(tree: Base, debs: list[Path]) -> None:
    with bare_boot("stopped", tree, debs, BARE) as boot:
        machine = boot.machine
        machine.run(["sh", "-ec", f"cat > {SHIM}; chmod 755 {SHIM}"], input=HANGING)
        run = subprocess.Popen([*machine.enter(), "env", "SAMMY_PACKAGES_INSTALL=no-such-package", *AGAIN])
        wait_until(lambda: machine.run(LEFT, check=False).returncode == 0, "apt hangs", 60)
        # Its line is in the journal while it hangs.
        said = ["-t", "sammy", "SAMMY_STEP=packages", "--grep=apt waits for something"]
        wait_until(lambda: bool(machine.journal(*said)), "what it said can be read", 30)
        machine.run(["pkill", "--full", "-TERM", "^/usr/bin/python3 /usr/bin/cloud-init single"])
        run.wait(60)
        assert machine.run(LEFT, check=False).returncode == 1
        told_and_healed(boot)


def told_and_healed(boot: Boot) -> None:
    machine = boot.machine
    record = state(machine)
    assert (record.outcome, record.step("packages").status) == (Outcome.FAILED, Status.FAILED)
    assert "the run was stopped from outside" in record.step("packages").reason
    ended = machine.journal("-t", "sammy", f"SAMMY_RUN_ID={record.run_id}", "SAMMY_EVENT=provision.all")
    assert ["stopped from outside" in str(entry["MESSAGE"]) for entry in ended] == [True]
    # apt's timers were given back all the same.
    assert "masked" not in machine.run(["systemctl", "is-enabled", "apt-daily.timer"], check=False).stdout
    machine.run(["rm", SHIM])
    machine.run(AGAIN)
    assert state(machine).outcome is Outcome.READY
