# SPDX-License-Identifier: Apache-2.0
"""Rules that keep the control plane out, in a real kernel with a real listener: given up when it returns, else kept.

The edge is the control plane: it calls the agent's port five times a second. The guard's patience is cut to a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cc_sammy.common import files
from cc_sammy.firewall import boot_files, commands, enforce, lock, rollback
from sammy_agent.daemon.firewall_watch import inbound_contact, lockout, watchdog
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.firewall_watch.watchdog import FirewallWatchdog
from tests.firewall_config import firewall_config
from tests.network.firewall_lab import BACKENDS, SSH, VM_FOR, Lab, MachineHost, inside, wait_until

pytestmark = pytest.mark.needs("root")

PORT = 8444  # the lab's own listener has the usual one
EDGE, ELSEWHERE = ("10.91.1.0/24", "fd91:1::/64"), ("192.0.2.0/24", "2001:db8::/32")
BOOT = str(Path(enforce.__file__).with_name("boot.sh"))

LISTEN = f"""
import socket
listener = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(b"hello"); connection.close()
    print(peer[0], flush=True)
"""
CALL = f"""
import socket, sys, time
print("calling", flush=True)
while True:
    try:
        socket.create_connection((sys.argv[1], {PORT}), timeout=0.3).close()
    except OSError:
        pass
    time.sleep(0.2)
"""


class Machine:
    """The vm with its configuration, what the control plane does, and the guard that watches both."""

    def __init__(self, lab: Lab, vm: MachineHost, backend: str) -> None:
        self.lab, self.vm = lab, vm
        self.config = firewall_config(backend=backend, allow=EDGE, ssh="drop-always")
        self.inbound = InboundContacts()
        self.done: list[str] = []
        self._listener = lab.start("vm", LISTEN)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._caller = lab.start("edge", CALL, VM_FOR["edge"][0])
        self.guard = self.new_guard()

    def _read(self) -> None:
        for peer in self._listener.stdout or ():
            if peer.strip() == "::ffff:10.91.1.2":  # credentials stand for it in the agent
                self.inbound.record(peer.strip())

    def new_guard(self) -> FirewallWatchdog:
        return FirewallWatchdog(self.inbound, lambda: True, self.verb, boot_files.FOLDER)

    def verb(self, *words: str) -> dict[str, Any]:
        """Run a verb as the firewall's own program does."""
        said = io.StringIO()
        args: Any = SimpleNamespace(firewall_verb=words[0], json=True, seconds=int(words[1]) if words[1:] else 3)
        with contextlib.redirect_stdout(said):
            commands.run(args, self.vm, self.config, PORT)
        self.done.append(words[0])
        answer: dict[str, Any] = json.loads(said.getvalue())
        return answer

    def configure(self, allow: tuple[str, ...]) -> None:
        self.config = self.config._replace(allow=allow)
        assert self.verb("apply")["ok"]

    def hang_up(self) -> None:
        """Let the control plane call no more."""
        self.lab.stop(self._caller)

    def stranger(self) -> str:
        return self.lab.connect("stranger", VM_FOR["stranger"][0], PORT, seconds=0.5)

    def edge(self) -> str:
        return self.lab.connect("edge", VM_FOR["edge"][0], PORT)

    def wait_for(self, verb: str) -> None:
        wait_until(lambda: verb in self.done, f"the guard's {verb}", 60)

    def stop(self) -> None:
        self.guard.stop()
        if self.guard.is_alive():
            self.guard.join(30)


@pytest.fixture(params=BACKENDS)
def machine(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Machine]:
    monkeypatch.setattr(lock, "LOCK", str(tmp_path / "firewall.lock"))
    monkeypatch.setattr(inbound_contact, "SAME_VISIT_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "MIN_INTERVAL", 0.2)
    for name, seconds in {
        "MIN_ABSENCE": 1.0,
        "MIN_TRIAL": 2.0,
        "DECISION_INTERVAL": 0.1,
        "TRIAL_INTERVAL": 0.05,
    }.items():
        monkeypatch.setattr(lockout, name, seconds)
    with inside(lab.names["vm"], str(tmp_path)):
        vm = MachineHost(lab.names["vm"], variant=request.param.removeprefix("iptables-"))
        made = Machine(lab, vm, request.param.partition("-")[0])
        made.configure(EDGE)
        try:
            yield made
        finally:
            made.stop()
            for process in (made._listener, made._caller):
                with contextlib.suppress(ValueError):  # ended by the test
                    lab.stop(process)
            lab.clear()


def proven(machine: Machine) -> None:
    """Let the guard see the control plane come in regularly."""
    machine.guard.start()
    wait_until(lambda: machine.inbound.stats().visits > lockout.MIN_VISITS, "visits", 30)
    machine.wait_for("vouch")


def test_rules_that_keep_the_control_plane_out_are_rolled_back_to_the_good_ones(machine: Machine) -> None:
    proven(machine)
    machine.configure(ELSEWHERE)
    machine.wait_for("trial")
    machine.wait_for("roll-back")
    wait_until(lambda: "the previous rules are in force" in machine.guard.problem(), "the guard to say so", 10)
    assert (machine.edge(), machine.stranger()) == ("reached", "dropped")
    said = machine.verb("check")
    assert said["ok"] is False
    assert said["problems"][0].startswith("the agent went back to the previous rules, because the control plane")
    assert machine.verb("repair")["repaired"] == []
    assert machine.verb("status")["rolled_back"]["restored"] is True
    machine.lab.clear()
    machine.vm.run(["sh", BOOT, boot_files.FOLDER])  # the next boot
    assert (machine.edge(), machine.stranger()) == ("reached", "dropped")
    machine.stop()
    machine.configure(EDGE)
    assert machine.verb("check")["ok"]
    assert machine.verb("status")["rolled_back"] is None


def test_without_rules_known_as_good_the_firewall_is_lifted_and_says_so(machine: Machine) -> None:
    proven(machine)
    files.remove(rollback.KNOWN_GOOD)
    machine.configure(ELSEWHERE)
    machine.wait_for("roll-back")
    wait_until(lambda: "open to all" in machine.guard.problem(), "the guard to say so", 10)
    assert (machine.edge(), machine.stranger()) == ("reached", "reached")
    said = machine.verb("check")
    assert said["problems"] == ["lifted by the agent: nothing guards the agent port"]
    assert machine.verb("repair")["repaired"] == []
    assert machine.stranger() == "reached"  # decided, so it stands
    machine.stop()
    machine.configure(EDGE)
    assert (machine.edge(), machine.stranger()) == ("reached", "dropped")


def test_a_control_plane_that_is_gone_has_the_rules_back_after_the_trial(machine: Machine) -> None:
    proven(machine)
    machine.hang_up()
    machine.configure((*EDGE, *ELSEWHERE))
    machine.wait_for("trial")
    machine.done.clear()
    ssh = machine.lab.connect("stranger", VM_FOR["stranger"][0], SSH, seconds=0.5)
    assert ssh == "dropped"  # only the agent's port is opened
    machine.wait_for("repair")
    wait_until(lambda: not machine.guard.snapshot()["lifted"], "the trial to end", 30)
    assert machine.stranger() == "dropped"
    assert machine.verb("check")["problems"] == []
    assert machine.guard.problem() == ""


@pytest.mark.parametrize("machine", ["nftables", "iptables-legacy"], indirect=True)
def test_killed_in_the_roll_back_the_good_rules_are_put_in_force_by_the_next_repair(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.verb("vouch")["ok"]
    machine.configure(ELSEWHERE)
    with monkeypatch.context() as patched:
        patched.setattr(enforce, "apply", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            machine.verb("roll-back")
    assert machine.stranger() == "dropped"
    assert machine.verb("repair")["repaired"]
    assert (machine.edge(), machine.stranger()) == ("reached", "dropped")


def killed(machine: Machine, again: Callable[[], None]) -> None:
    """Leave a trial as a kill would: nobody puts the rules back."""
    machine.hang_up()
    assert machine.verb("trial", "3")["ok"]
    begun = time.monotonic()
    assert (machine.edge(), machine.stranger()) == ("reached", "reached")
    again()
    wait_until(lambda: machine.stranger() == "dropped", "the port to be closed", 30)
    assert machine.edge() == "reached"
    print(f"closed {time.monotonic() - begun:.1f} s after the opening")


@pytest.mark.parametrize("machine", ["nftables", "iptables-legacy"], indirect=True)
def test_an_agent_killed_in_the_trial_puts_the_rules_back_when_it_begins_again(machine: Machine) -> None:
    killed(machine, machine.new_guard().run_once)  # type: ignore[arg-type]
    assert machine.done[-1] == "repair"
    assert machine.verb("check")["problems"] == []


def test_with_nobody_left_the_kernel_itself_ends_the_trial(machine: Machine) -> None:
    killed(machine, lambda: None)
    assert len(machine.verb("check")["problems"]) >= 1  # the rule is dead, and told
    assert machine.verb("repair")["repaired"]
    assert machine.verb("check")["problems"] == []


@pytest.mark.parametrize("machine", ["nftables", "iptables-legacy"], indirect=True)
def test_an_operators_lift_has_its_time_though_the_guard_looks(machine: Machine) -> None:
    machine.hang_up()
    assert machine.verb("lift")["ok"]
    machine.new_guard().run_once()
    assert machine.done[-1] == "repair"
    assert machine.stranger() == "reached"
    assert "was lifted by hand until" in machine.verb("check")["problems"][0]
    machine.configure(EDGE)  # an apply ends it
    assert machine.stranger() == "dropped"
    assert machine.verb("lift")["ok"]
    wait_until(lambda: machine.stranger() == "dropped", "the lift's end", 30)
    wait_until(lambda: bool(machine.verb("repair")["repaired"]), "the repair that takes its rule away", 10)
    assert machine.verb("check")["problems"] == []
