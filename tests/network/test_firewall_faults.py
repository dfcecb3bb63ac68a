# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong, loopback and the allowed sources get through, and the operator is told."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files, cloudflare_refresh, commands, dry_run, enforce, lock
from cc_sammy.firewall.backends import iptables, nftables
from cc_sammy.firewall.model import networks, port_rules
from cc_sammy.firewall.model import policy as policy_module
from cc_sammy.host.host import CommandResult, Host
from tests.firewall_config import firewall_config
from tests.network.firewall_lab import AGENT, BACKENDS, CONNECT, Lab, MachineHost, inside

pytestmark = pytest.mark.needs("root")

EDGE = ["10.91.1.0/24", "fd91:1::/64"]
POLICY = policy_module.Policy(AGENT, *networks.parse(EDGE, "test"), ssh="drop")
OTHER = policy_module.Policy(AGENT, *networks.parse([*EDGE, "192.0.2.0/24"], "test"), ssh="drop")
REACHED, DROPPED = ("reached", "reached"), ("dropped", "dropped")
TOP = Path(__file__).resolve().parents[2]
BOOT = str(Path(enforce.__file__).with_name("boot.sh"))
KILLS = 25


class Faulty(MachineHost):
    """A machine on which some programs are missing or fail."""

    missing: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()

    def run(self, argv: Sequence[str], **settings: Any) -> CommandResult:
        if argv[0] in self.missing:
            return Host.run(self, ["/nonexistent/program"], **settings)
        if argv[0] in self.failing:
            return Host.run(self, ["false"], **settings)
        return super().run(argv, **settings)


# The kernel as it is without its nfnetlink module, for one process and its children: a seccomp filter answers
# socket(AF_NETLINK, *, NETLINK_NETFILTER) with EPROTONOSUPPORT, and nft and iptables say what they say there.
WITHOUT_MODULE = """
import ctypes, os, platform, struct, sys
socket = {"x86_64": 41, "aarch64": 198}[platform.machine()]
load, equal, give = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (equal, 0, 5, socket), (load, 0, 0, 16), (equal, 0, 3, 16), (load, 0, 0, 32),
        (equal, 0, 1, 12), (give, 0, 0, 0x00050000 | 93), (give, 0, 0, 0x7FFF0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
filter = Filter(len(code), ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filter)) == 0, os.strerror(ctypes.get_errno())
from tests.network import test_firewall_faults as t
t.lock.LOCK = sys.argv[2] + "/firewall.lock"
try:
    t.enforce.apply(t.MachineHost(sys.argv[1]), t.OTHER._replace(backend=sys.argv[3]))
except t.SammyError as error:
    print(error)
"""


@pytest.fixture
def vm(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setattr(lock, "LOCK", str(tmp_path / "firewall.lock"))
    with inside(lab.names["vm"], str(tmp_path)):
        yield Faulty(lab.names["vm"])
    lab.clear()


def reachable(lab: Lab) -> bool:
    return (lab.reach("vm", AGENT), lab.reach("edge", AGENT)) == (REACHED, REACHED)


@pytest.mark.parametrize(("name", "program"), [("nftables", "nft"), ("iptables", "iptables")])
def test_a_missing_program_is_said_and_the_rules_of_before_stay(lab: Lab, vm: Faulty, name: str, program: str) -> None:
    policy = POLICY._replace(backend=name)
    enforce.apply(vm, policy)
    vm.missing = (program,)
    with pytest.raises(SammyError, match=f"{program} is not there.*what was in force before still is"):
        enforce.apply(vm, OTHER._replace(backend=name))
    vm.missing = ()
    assert enforce.check(vm, policy) == []
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)


def test_without_any_program_the_machine_is_open_and_says_so(lab: Lab, vm: Faulty) -> None:
    vm.missing = ("nft", "iptables")
    with pytest.raises(SammyError, match="apt install nftables"):
        enforce.apply(vm, POLICY)
    assert reachable(lab)
    assert lab.reach("stranger", AGENT) == REACHED


def test_one_family_refused_leaves_both_reachable(lab: Lab, vm: Faulty) -> None:
    """Two families are two transactions: the second may fail after the first."""
    old, new = POLICY._replace(backend="iptables"), OTHER._replace(backend="iptables")
    enforce.apply(vm, old)
    vm.failing = ("ip6tables-nft-restore",)
    with pytest.raises(SammyError, match="the IPv6 rules were not loaded"):
        enforce.apply(vm, new)
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)
    vm.failing = ()
    enforce.apply(vm, new)
    assert enforce.check(vm, new) == []


def test_a_kernel_that_refuses_a_line_in_the_middle_keeps_what_it_had(lab: Lab, vm: Faulty) -> None:
    enforce.apply(vm, POLICY)
    broken = port_rules.text(OTHER).splitlines()
    broken.insert(len(broken) - 3, "add rule inet sammy input tcp dport 1 ip saddr @nosuch accept")
    assert vm.run(["nft", "-f", "-"], input="\n".join(broken) + "\n", check=False).returncode != 0
    assert enforce.check(vm, POLICY) == []
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)


@pytest.mark.parametrize("held", [False, True], ids=["nothing before", "rules before"])
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_kernel_without_the_module_is_said_and_nothing_is_changed(
    lab: Lab, vm: Faulty, backend: str, held: bool
) -> None:
    policy = POLICY._replace(backend=backend)
    if held:
        enforce.apply(vm, policy)
    words = [sys.executable, "-c", WITHOUT_MODULE, lab.names["vm"], os.path.dirname(lock.LOCK), backend]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, cwd=TOP)
    assert re.search("(nothing was|was not) changed", done.stdout), done.stdout + done.stderr
    assert "Protocol not supported" in done.stdout
    assert "modprobe nf_tables" in done.stdout
    assert reachable(lab)
    assert lab.reach("stranger", AGENT) == (DROPPED if held else REACHED)
    assert enforce.active_backends(vm) == ([backend] if held else [])
    if held:
        assert enforce.check(vm, policy) == []


@pytest.mark.parametrize("name", BACKENDS)
def test_a_full_disk_guards_now_and_says_that_the_next_boot_does_not(lab: Lab, vm: Faulty, name: str) -> None:
    vm.variant = name.removeprefix("iptables-")
    policy = POLICY._replace(backend=name.partition("-")[0])
    folder = Path(boot_files.FOLDER)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "small", str(folder)], check=True)
    try:
        (folder / "ballast").write_bytes(b"x" * 32768)
        with pytest.raises(SammyError, match=r"the rules are in force, but .* could not be written \(No space left"):
            enforce.apply(vm, policy)
        assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)
        assert any("next boot" in problem for problem in enforce.check(vm, policy))
        assert not list(folder.glob("*.new"))
        (folder / "ballast").unlink()
        enforce.apply(vm, policy)
        assert enforce.check(vm, policy) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_killed_at_any_point_it_is_one_whole_or_the_other(lab: Lab, vm: Faulty, name: str) -> None:
    backend = name.partition("-")[0]
    vm.variant = name.removeprefix("iptables-")
    policies = [POLICY._replace(backend=backend), OTHER._replace(backend=backend)]
    enforce.apply(vm, policies[0])
    program = (
        "import sys\n"
        "from tests.network import test_firewall_faults as t\n"
        "t.lock.LOCK = sys.argv[2] + '/firewall.lock'; vm = t.MachineHost(sys.argv[1], sys.argv[3])\n"
        "print('begin', flush=True)\n"
        "[t.enforce.apply(vm, p._replace(backend=sys.argv[4])) for _ in range(50) for p in (t.OTHER, t.POLICY)]\n"
    )
    words = [lab.names["vm"], os.path.dirname(lock.LOCK), vm.variant, backend]
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(KILLS):
        argv = [sys.executable, "-c", program, *words]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=TOP, start_new_session=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begin"
        try:
            process.wait(timeout=chance.uniform(0, 0.25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # a command of the killed one may still be at work in its own session; the lock is free, so the next goes on
        vm.run(["sh", BOOT, boot_files.FOLDER])
        held = [enforce.check(vm, policy) for policy in policies]
        whole = [[p for p in problems if "next boot" not in p] for problems in held]
        assert [] in whole or backend == "iptables", whole
        assert lab.connect("edge", "10.91.1.1", AGENT) == "reached"
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)
    enforce.apply(vm, policies[0])
    assert enforce.check(vm, policies[0]) == []


@pytest.mark.parametrize("backend", [nftables, iptables])
@pytest.mark.parametrize("ssh", ["open", "drop"])
def test_the_trial_passes_good_rules(backend: Any, ssh: str) -> None:
    before = Host().run(["ip", "-br", "link"]).stdout
    for policy in (POLICY._replace(ssh=ssh), policy_module.Policy(AGENT, allow_any=True, ssh=ssh)):
        outcome = dry_run.run(policy, backend)
        assert (outcome.problems, outcome.unavailable, outcome.refused) == ([], "", None)
        assert outcome.versions == (4, 6)
    assert Host().run(["ip", "-br", "link"]).stdout == before


class Broken:
    """A backend that loads other rules than it should."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def load_in(self, host: Host, policy: policy_module.Policy) -> None:
        chain = "{ type filter hook input priority 0; policy accept; }"
        text = "\n".join(["add table inet t", f"add chain inet t i {chain}", *self.lines])
        host.run(["nft", "-f", "-"], input=text + "\n")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "a stranger by IPv4 would be let in at the agent port"),
        (("add rule inet t i meta nfproto ipv4 tcp dport { 22, 8443 } drop",), "a stranger by IPv6 would be let in"),
        (("add rule inet t i iifname != lo tcp dport { 22, 8443 } drop",), "10.91.1.1 would not reach the agent port"),
        (("add rule inet t i iifname lo drop",), "would be closed over loopback"),
        (("add rule inet t i iifname trial0 drop",), "other ports would be closed"),
        (("add rule inet t i iifname docker0 tcp dport 8443 drop",), "a container on docker0 would not reach"),
        (("add rule inet t i tcp dport 8443 drop",), "ssh by IPv4 would be open to strangers"),
    ],
)
def test_the_trial_sees_each_kind_of_wrong_rules_and_nothing_is_changed(
    vm: Faulty, lines: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SammyError, match="failed their trial, nothing was changed") as caught:
        dry_run.check_once(vm, POLICY, Broken(*lines))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert not os.path.exists(dry_run.TRIED)


def test_rules_refused_in_the_trial_are_not_applied(vm: Faulty) -> None:
    with pytest.raises(SammyError, match="refused the rules in a trial, nothing was changed"):
        dry_run.check_once(vm, POLICY, Broken("add rule inet t i nonsense"))  # type: ignore[arg-type]


def test_the_same_rules_are_tried_once(vm: Faulty) -> None:
    assert dry_run.check_once(vm, POLICY, nftables) == []
    assert dry_run.check_once(vm, POLICY, Broken()) == []  # type: ignore[arg-type]
    with pytest.raises(SammyError):
        dry_run.check_once(vm, OTHER, Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BACKENDS)
def test_rules_load_where_ipv6_is_switched_off(lab: Lab, vm: Faulty, name: str) -> None:
    alone = f"{lab.names['vm']}-six"
    subprocess.run(["ip", "netns", "add", alone], check=True)
    try:
        machine = MachineHost(alone, name.removeprefix("iptables-"))
        machine.run(["ip", "link", "set", "lo", "up"])
        machine.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        policy = POLICY._replace(backend=name.partition("-")[0])
        enforce.apply(machine, policy)
        assert enforce.check(machine, policy) == []
        answer = machine.run([sys.executable, "-c", CONNECT, "127.0.0.1", str(AGENT), "5", "0"])
        assert answer.stdout.strip() == "refused"  # nobody listens, so a dropped packet would be "dropped"
    finally:
        subprocess.run(["ip", "netns", "del", alone], check=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_admins_flush_is_repaired_by_the_verb(
    lab: Lab, vm: Faulty, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    vm.variant = name.removeprefix("iptables-")
    config = firewall_config(backend=name.partition("-")[0], allow=tuple(EDGE), ssh="drop-always")
    words = SimpleNamespace(firewall_verb="repair", json=False)
    for first in ("repaired: ", "nothing to repair"):
        assert commands.run(words, vm, config, AGENT) == 0  # type: ignore[arg-type]
        assert capsys.readouterr().out.startswith(first)
    vm.run(["nft", "flush", "ruleset"])
    for program in ("iptables-legacy", "ip6tables-legacy"):
        vm.run([program, "-F"])
    assert lab.reach("stranger", AGENT) == REACHED
    assert commands.run(words, vm, config, AGENT) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.startswith("repaired: ")
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)
    enforce.remove(vm)
    assert commands.run(words, vm, config, AGENT) == 0  # type: ignore[arg-type]
    assert lab.reach("stranger", AGENT) == REACHED


@pytest.mark.parametrize("name", BACKENDS)
def test_a_list_that_came_back_bad_shuts_nobody_out_and_a_good_one_lets_in(
    lab: Lab, vm: Faulty, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vm.variant = name.removeprefix("iptables-")
    config = firewall_config(backend=name.partition("-")[0], allow=("cloudflare", *EDGE), ssh="drop-always")
    answers = {
        "empty": cloudflare_refresh.FetchResult(b""),
        "html": cloudflare_refresh.FetchResult(b"<html><body>Just a moment...</body></html>"),
        "wide": cloudflare_refresh.FetchResult("\n".join([*networks.CLOUDFLARE, "0.0.0.0/0"]).encode()),
        "small": cloudflare_refresh.FetchResult(
            "\n".join([*networks.CLOUDFLARE[:9], *networks.CLOUDFLARE[15:]]).encode()
        ),
        "good": cloudflare_refresh.FetchResult("\n".join([*networks.CLOUDFLARE, "9.9.9.0/24"]).encode()),
    }
    monkeypatch.setattr(cloudflare_refresh, "fetch", lambda url, etag: answers[url])

    def run(verb: str, url: str = "") -> dict[str, Any]:
        words: Any = SimpleNamespace(firewall_verb=verb, json=True)
        status = commands.run(words, vm, config._replace(ranges_url=url), AGENT)
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert answer["ok"] is (status == 0)
        return answer

    assert run("apply")["ok"]
    for fault in ("empty", "html", "wide", "small"):
        said = run("refresh", fault)
        assert said["code"] == "ranges-refused" and "the list" in said["error"], said
        assert run("check")["ok"]
    assert (reachable(lab), lab.reach("stranger", AGENT)) == (True, DROPPED)
    changed = run("refresh", "good")
    assert (changed["changed"], changed["applied"], changed["networks"]) == (True, True, len(networks.CLOUDFLARE) + 1)
    assert run("check")["ok"]
    listed = vm.run(["nft", "list", "ruleset"]).stdout + vm.run(["iptables-legacy", "-S"]).stdout
    assert "9.9.9.0/24" in listed
    assert (reachable(lab), lab.connect("stranger", "10.91.2.1", AGENT, seconds=0.5)) == (True, "dropped")
