# SPDX-License-Identifier: Apache-2.0
"""The firewall in a real kernel: who gets through, and that re-applying never shows a gap."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.common import files
from cc_sammy.firewall import boot_files, commands, enforce, lock, metadata_table
from cc_sammy.firewall.backends import foreign_rules, nftables
from cc_sammy.firewall.model import iptables_chain as chain
from cc_sammy.firewall.model import networks, port_rules
from cc_sammy.firewall.model import policy as policy_module
from tests.firewall_config import METADATA, firewall_config
from tests.network.firewall_lab import AGENT, BACKENDS, METADATA4, METADATA6, SERVE, SSH, Lab, MachineHost, inside

pytestmark = pytest.mark.needs("root")

ALLOW4, ALLOW6 = networks.parse(["10.91.1.0/24", "fd91:1::/64"], "test")
POLICY = policy_module.Policy(AGENT, ALLOW4, ALLOW6, ssh="drop")
BOOT = str(Path(enforce.__file__).with_name("boot.sh"))
REACHED, DROPPED = ("reached", "reached"), ("dropped", "dropped")


@pytest.fixture
def vm(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MachineHost]:
    monkeypatch.setattr(lock, "LOCK", str(tmp_path / "firewall.lock"))
    with inside(lab.names["vm"], str(tmp_path)):
        yield MachineHost(lab.names["vm"])
    lab.clear()


@pytest.fixture(params=BACKENDS)
def each(vm: MachineHost, request: pytest.FixtureRequest) -> str:
    """The test runs on every backend; gives Policy's word for it."""
    vm.variant = request.param.removeprefix("iptables-")
    return str(request.param).partition("-")[0]


def test_without_rules_everyone_reaches_everything(lab: Lab, vm: MachineHost) -> None:
    for role in ("edge", "stranger", "vm"):
        assert (lab.reach(role, AGENT), lab.reach(role, SSH)) == (REACHED, REACHED)


@pytest.mark.parametrize(("ssh", "reached_by"), [("open", ("edge", "stranger")), ("drop", ()), ("networks", ("edge",))])
def test_allowed_reach_strangers_do_not(
    lab: Lab, vm: MachineHost, each: str, ssh: str, reached_by: tuple[str, ...]
) -> None:
    lists = {"ssh4": ALLOW4, "ssh6": ALLOW6} if ssh == "networks" else {}
    enforce.apply(vm, policy_module.Policy(AGENT, ALLOW4, ALLOW6, ssh=ssh, backend=each, **lists))  # type: ignore[arg-type]
    assert lab.reach("edge", AGENT) == REACHED
    assert lab.reach("stranger", AGENT) == DROPPED
    assert (lab.reach("vm", AGENT), lab.reach("vm", SSH)) == (REACHED, REACHED)
    for role in ("edge", "stranger"):
        assert lab.reach(role, SSH) == (REACHED if role in reached_by else DROPPED)


def test_anyone_may_be_allowed(lab: Lab, vm: MachineHost, each: str) -> None:
    enforce.apply(vm, policy_module.Policy(AGENT, allow_any=True, backend=each))
    assert lab.reach("stranger", AGENT) == REACHED


def test_a_docker_bridge_is_let_in_unless_it_is_the_uplink(lab: Lab, vm: MachineHost, each: str) -> None:
    lab.sh("vm", "ip link set wan0 down; ip link set wan0 name br-lan; ip link set br-lan up")
    lab.sh("vm", "ip -6 addr replace fd91:2::1/64 dev br-lan nodad")
    try:
        enforce.apply(vm, POLICY._replace(backend=each))
        assert (lab.reach("stranger", AGENT), lab.reach("stranger", SSH)) == (REACHED, DROPPED)
        enforce.apply(vm, policy_module.Policy(AGENT, ALLOW4, ALLOW6, uplinks=("br-lan",), backend=each))
        assert (lab.reach("edge", AGENT), lab.reach("stranger", AGENT)) == (REACHED, DROPPED)
    finally:
        lab.sh("vm", "ip link set br-lan down; ip link set br-lan name wan0; ip link set wan0 up")
        lab.sh("vm", "ip -6 addr replace fd91:2::1/64 dev wan0 nodad")


def test_check_notices_a_rule_deleted_by_hand(lab: Lab, vm: MachineHost) -> None:
    enforce.apply(vm, POLICY)
    assert enforce.check(vm, POLICY) == []
    for rule in port_rules.build(POLICY).chains[0].rules:
        objects = json.loads(lab.sh("vm", "nft --json list table inet sammy"))["nftables"]
        held = {entry["rule"]["comment"]: entry["rule"]["handle"] for entry in objects if "rule" in entry}
        vm.run(["nft", "delete", "rule", "inet", "sammy", "input", "handle", str(held[rule.name])])
        assert enforce.check(vm, POLICY) == [f"chain input of table inet sammy: rule missing: {rule.name}"]
        enforce.apply(vm, POLICY)
    vm.run(["nft", "flush", "ruleset"])
    assert "is not loaded" in enforce.check(vm, POLICY)[0]
    enforce.apply(vm, POLICY)
    assert enforce.check(vm, POLICY) == []


def test_check_notices_insertions_elements_and_a_dormant_table(vm: MachineHost) -> None:
    enforce.apply(vm, POLICY)
    vm.run(["nft", "insert rule inet sammy input ip saddr 192.0.2.1 accept"])
    vm.run(["nft", "add element inet sammy allow4 { 198.51.100.0/24 }"])
    assert enforce.check(vm, POLICY) == [
        "set allow4 of table inet sammy holds 198.51.100.0/24, which is not allowed",
        "chain input of table inet sammy: extra rule at place 1: ip saddr 192.0.2.1 accept",
    ]
    enforce.apply(vm, POLICY)
    vm.run(["nft", "add table inet sammy { flags dormant; }"])
    assert "switched off by hand" in enforce.check(vm, POLICY)[0]
    enforce.apply(vm, POLICY)
    assert enforce.check(vm, POLICY) == []


def test_a_table_of_foreign_shape_is_rebuilt(lab: Lab, vm: MachineHost) -> None:
    chain = "{ type filter hook input priority 10; policy drop; }"
    vm.run(["nft", "-f", "-"], input=f"add table inet sammy\nadd chain inet sammy input {chain}\n")
    enforce.apply(vm, POLICY)
    assert enforce.check(vm, POLICY) == []
    assert "delete table" not in (files.read_text(nftables.APPLIED) or "")


def test_the_whole_of_cloudflare_reads_back_equal(vm: MachineHost, each: str) -> None:
    policy = policy_module.Policy(AGENT, *networks.parse(["cloudflare"], "test"), backend=each)
    enforce.apply(vm, policy)
    assert enforce.check(vm, policy) == []


def test_the_kept_files_alone_guard_the_next_boot(lab: Lab, vm: MachineHost, each: str) -> None:
    policy = POLICY._replace(backend=each)
    enforce.apply(vm, policy)
    stored = [path for path in os.listdir(boot_files.FOLDER) if path != "tried"]
    assert len(stored) == (1 if each == "nftables" else 2)
    assert {os.stat(f"{boot_files.FOLDER}/{name}").st_mode & 0o777 for name in stored} == {0o600}
    lab.clear()
    assert lab.reach("stranger", AGENT) == REACHED
    for _ in range(2):  # a restart of the unit is no boot, and must not add a second jump
        vm.run(["sh", BOOT, boot_files.FOLDER])
        assert enforce.check(vm, policy) == []
    assert (lab.reach("edge", AGENT), lab.reach("stranger", AGENT)) == (REACHED, DROPPED)


def test_a_file_that_fails_at_boot_keeps_no_other_from_being_loaded(lab: Lab, vm: MachineHost) -> None:
    enforce.apply(vm, POLICY._replace(backend="iptables"))
    lab.clear()
    files.write_text(boot_files.FOLDER + "/metadata.nft", "nonsense\n")
    assert vm.run(["sh", BOOT, boot_files.FOLDER], check=False).returncode == 1
    assert lab.reach("stranger", AGENT) == DROPPED


def test_remove_lifts_until_apply(lab: Lab, vm: MachineHost, each: str) -> None:
    policy = POLICY._replace(backend=each)
    enforce.apply(vm, policy)
    enforce.remove(vm)
    enforce.remove(vm)
    assert lab.reach("stranger", AGENT) == REACHED
    assert boot_files.is_removed()
    assert set(os.listdir(boot_files.FOLDER)) <= {"removed", "tried"}
    assert enforce.active_backends(vm) == []
    enforce.apply(vm, policy)
    assert not boot_files.is_removed()
    assert lab.reach("stranger", AGENT) == DROPPED


def test_another_backend_takes_over_without_a_gap_or_a_rest(lab: Lab, vm: MachineHost) -> None:
    for name, variant in (("nftables", "nft"), ("iptables", "nft"), ("iptables", "legacy"), ("nftables", "legacy")):
        vm.variant = variant
        policy = POLICY._replace(backend=name)
        enforce.apply(vm, policy)
        assert enforce.active_backends(vm) == [name]
        assert enforce.check(vm, policy) == []
        assert lab.reach("stranger", AGENT) == DROPPED
        held = [lab.sh("vm", f"iptables-{one} -S").count("-N SAMMY") for one in ("nft", "legacy")]
        assert held == [int((name, one) == ("iptables", variant)) for one in ("nft", "legacy")]


def test_iptables_keeps_the_rules_of_others_and_stands_before_them(lab: Lab, vm: MachineHost) -> None:
    policy = POLICY._replace(backend="iptables")
    for variant in ("nft", "legacy"):
        vm.variant = variant
        lab.sh("vm", f"iptables-{variant} -N MINE; iptables-{variant} -A INPUT -p icmp -j MINE")
        enforce.apply(vm, policy)
        program = f"iptables-{variant}"
        lab.sh("vm", f"{program} -I INPUT 1 -p tcp --dport {AGENT} -j ACCEPT; {program} -A INPUT -j SAMMY")
        assert enforce.check(vm, policy) == ["IPv4 INPUT jumps to SAMMY 2 times"]
        assert lab.connect("stranger", "10.91.2.1", AGENT) == "reached"
        enforce.apply(vm, policy)
        assert enforce.check(vm, policy) == []
        assert lab.reach("stranger", AGENT) == DROPPED
        listed = lab.sh("vm", f"{program} -S INPUT").splitlines()
        assert listed[1] == "-A INPUT -j SAMMY"
        assert "-A INPUT -p icmp -j MINE" in listed
        lab.clear()


def test_check_notices_what_was_done_to_the_chain(lab: Lab, vm: MachineHost) -> None:
    policy = POLICY._replace(backend="iptables")
    for variant in ("nft", "legacy"):
        vm.variant = variant
        enforce.apply(vm, policy)
        for number, line in enumerate(chain.lines(policy, 6), 1):
            lab.sh("vm", f"ip6tables-{variant} -D SAMMY {number}")
            assert enforce.check(vm, policy) == [f"IPv6 chain SAMMY: rule missing: {line.name}"]
            enforce.apply(vm, policy)
        lab.sh("vm", f"iptables-{variant} -F INPUT")
        assert enforce.check(vm, policy) == ["IPv4 INPUT does not jump to SAMMY: nothing it should guard is guarded"]
        enforce.apply(vm, policy)
        assert enforce.check(vm, policy) == []


def test_the_old_trap_is_opened_and_other_closed_inputs_are_left(lab: Lab, vm: MachineHost, each: str) -> None:
    policy = POLICY._replace(backend=each)
    program = f"iptables-{'legacy' if vm.variant == 'legacy' else 'nft'}"
    established = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    trap = f"{program} -P INPUT DROP; {program} -A INPUT {established}; {program} -A INPUT -i lo -j ACCEPT"
    lab.sh("vm", trap)
    assert any("it was the trap" in note for note in enforce.apply(vm, policy))
    assert lab.connect("edge", "10.91.1.1", AGENT) == "reached"
    lab.sh("vm", f"{program} -P INPUT DROP; {program} -A INPUT -p tcp --dport 25 -j ACCEPT")
    assert any("has policy DROP" in note for note in enforce.apply(vm, policy))
    assert f"IPv4 INPUT ({program})" in enforce.status(vm, each)["input_policy_drop"]
    assert lab.sh("vm", f"{program} -S INPUT").startswith("-P INPUT DROP")
    enforce.apply(vm, policy, "accept")
    assert lab.sh("vm", f"{program} -S INPUT").startswith("-P INPUT ACCEPT")


def test_published_ports_are_closed_to_strangers_and_outbound_is_not(lab: Lab, vm: MachineHost) -> None:
    """The stranger stands for a container here: behind the vm, reached by a turned packet, reaching out itself."""
    lab.start("stranger", SERVE, "8080")
    lab.sh("vm", "nft add table ip docker; nft 'add chain ip docker pre { type nat hook prerouting priority -100; }'")
    lab.sh("vm", "nft add rule ip docker pre ip daddr 10.91.1.1 tcp dport 80 dnat to 10.91.2.2:8080")
    assert lab.connect("edge", "10.91.1.1", 80) == "reached"
    elsewhere = networks.parse(["192.0.2.0/24"], "test")
    enforce.apply(vm, policy_module.Policy(AGENT, *elsewhere, guard_published=True))
    assert enforce.check(vm, policy_module.Policy(AGENT, *elsewhere, guard_published=True)) == []
    assert lab.connect("edge", "10.91.1.1", 80) == "dropped"
    assert lab.connect("stranger", METADATA4, 80) == "reached"
    enforce.apply(vm, policy_module.Policy(AGENT, ALLOW4, ALLOW6, guard_published=True))
    assert lab.connect("edge", "10.91.1.1", 80) == "reached"
    enforce.apply(vm, policy_module.Policy(AGENT, *elsewhere))
    assert lab.connect("edge", "10.91.1.1", 80) == "reached"


def test_the_verbs_tell_what_is_and_was(lab: Lab, vm: MachineHost, capsys: pytest.CaptureFixture[str]) -> None:
    config = firewall_config(allow=("10.91.1.0/24", "fd91:1::/64"), ssh="drop")
    parser = argparse.ArgumentParser()
    commands.add_parser(parser.add_subparsers())

    def run(*words: str) -> tuple[int, dict[str, object]]:
        status = commands.run(parser.parse_args(["firewall", *words, "--json"]), vm, config, AGENT)
        return status, json.loads(capsys.readouterr().out)

    assert run("check")[0] == 1
    applied = {"agent_port": AGENT, "ssh": "open", "backend": "nftables", "notes": []}
    assert run("apply") == (0, {"verb": "apply", "ok": True, **applied})
    assert run("check") == (0, {"verb": "check", "ok": True, "problems": []})
    assert lab.connect("stranger", "10.91.2.1", AGENT) == "dropped"
    status, facts = run("status")
    dropped = facts["dropped"]
    assert status == 0
    assert isinstance(dropped, dict)
    assert dropped[f"nobody else may reach agent port {AGENT} by tcp"]["packets"] >= 1
    lab.sh("vm", "nft 'add table ip other; add chain ip other in { type filter hook input priority 0; policy drop; }'")
    assert run("status")[1]["closed_elsewhere"] == ["ip other in"]
    assert run("remove") == (0, {"verb": "remove", "ok": True, "removed": True})
    assert commands.run(parser.parse_args(["firewall", "status"]), vm, config, AGENT) == 1
    assert "removed by hand" in capsys.readouterr().out


def test_metadata_is_closed_to_containers_and_users_and_open_to_root(lab: Lab, vm: MachineHost) -> None:
    nobody = 65534
    addresses = (METADATA4, METADATA6)
    for address in addresses:
        assert lab.connect("stranger", address, 80) == "reached"
        assert lab.connect("vm", address, 80, uid=nobody) == "reached"
    metadata_table.apply(vm, METADATA, True)
    assert metadata_table.is_in_force(vm, METADATA, True)
    for address in addresses:
        for port in (80, 443):
            assert lab.connect("stranger", address, port) == "dropped"
            assert lab.connect("vm", address, port, uid=nobody) == "refused"
            assert lab.connect("vm", address, port) == "reached"
        assert lab.connect("stranger", address, 53) == "reached"
        assert lab.connect("vm", address, 53, uid=nobody) == "reached"
    metadata_table.apply(vm, METADATA, False)
    assert not metadata_table.is_in_force(vm, METADATA, True)
    assert lab.connect("vm", METADATA4, 80, uid=nobody) == "reached"
    vm.run(["nft", "flush", "chain", "inet", "sammy_metadata", "forward"])
    assert not metadata_table.is_in_force(vm, METADATA, False)
    metadata_table.remove(vm)
    assert lab.connect("stranger", METADATA4, 80) == "reached"


@pytest.mark.parametrize("host_processes", [True, False])
def test_a_flushed_metadata_block_is_named_by_check_and_put_back_by_repair(
    lab: Lab, vm: MachineHost, capsys: pytest.CaptureFixture[str], host_processes: bool
) -> None:
    config = firewall_config(allow=("10.91.1.0/24", "fd91:1::/64"), ssh="drop-always")
    enforce.apply(vm, POLICY)
    metadata_table.apply(vm, METADATA, host_processes)

    def run(verb: str) -> dict[str, Any]:
        commands.run(argparse.Namespace(firewall_verb=verb, json=True), vm, config, AGENT)
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    assert run("check")["problems"] == []
    vm.run(["nft", "delete", "table", "inet", "sammy_metadata"])
    said = run("check")
    assert said["problems"] == ["table inet sammy_metadata is not loaded: nothing it should guard is guarded"]
    assert said["next_step"] == "sammy firewall repair"
    vm.run(["nft", "flush", "ruleset"])
    assert len(run("repair")["repaired"]) == 2
    assert metadata_table.is_in_force(vm, METADATA, host_processes)
    assert run("check")["problems"] == []


def test_applies_repairs_and_checks_may_run_all_at_once(lab: Lab, vm: MachineHost, each: str) -> None:
    policies = [POLICY._replace(backend=each, ssh=ssh) for ssh in ("drop", "open")]
    enforce.apply(vm, policies[0])
    with lab.tries("stranger") as stranger, ThreadPoolExecutor(8) as pool:
        done = [pool.submit(enforce.apply, vm, policies[number % 2]) for number in range(16)]
        done += [pool.submit(enforce.check, vm, policies[number % 2]) for number in range(16)]
        for one in done:
            one.result(120)
    assert stranger[0] == 0 and stranger[1] > 0
    assert [] in [enforce.check(vm, policy) for policy in policies]
    listed = vm.run([f"iptables-{vm.variant}", "-S", "INPUT"]).stdout if each == "iptables" else ""
    assert listed.count("-j SAMMY") == (each == "iptables")


UFW = "{0} -P INPUT DROP; {0} -N ufw-before-input; {0} -A INPUT -j ufw-before-input"
FIREWALLD = (
    "nft 'add table inet firewalld; add chain inet firewalld filter_INPUT "
    "{ type filter hook input priority 10; policy drop; }'"
)


@pytest.mark.parametrize(
    ("rules", "name", "opens"),
    [
        (UFW.format("iptables-nft"), "ufw", "`ufw allow 8443/tcp`"),
        (UFW.format("iptables-legacy"), "ufw", "`ufw allow 8443/tcp`"),
        (FIREWALLD, "firewalld", "--add-port=8443/tcp"),
    ],
    ids=["ufw, nft", "ufw, legacy", "firewalld"],
)
def test_what_an_active_firewall_will_still_drop_is_said(
    lab: Lab, vm: MachineHost, rules: str, name: str, opens: str
) -> None:
    lab.sh("vm", rules)
    try:
        (said,) = [note for note in enforce.apply(vm, POLICY) if "is active" in note]
        assert said.startswith(f"{name} is active and may still drop tcp {AGENT}") and opens in said
        assert lab.connect("edge", "10.91.1.1", AGENT, seconds=0.5) == "dropped"  # an accept of ours is not final
        assert enforce.status(vm, "nftables")["other_firewalls"] == [name]
        assert lab.sh("vm", "iptables-nft -S INPUT; iptables-legacy -S INPUT").count("-P INPUT DROP") == (name == "ufw")
    finally:
        lab.clear()


def test_the_rules_of_others_are_read_in_the_namespace_of_the_thread_that_asks(lab: Lab, tmp_path: Path) -> None:
    """Under several workers a test is not the process's first thread: two tests read another machine's tables."""
    lab.sh("vm", UFW.format("iptables-legacy"))

    def ask() -> list[str]:
        with inside(lab.names["vm"], str(tmp_path)):
            return foreign_rules.inspect(MachineHost(lab.names["vm"], "legacy")).active()

    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(ask).result(60) == ["ufw"]
    finally:
        lab.clear()
