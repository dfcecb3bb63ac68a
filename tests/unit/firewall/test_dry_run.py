# SPDX-License-Identifier: Apache-2.0
"""What a dry run finds wrong with rules, and what it makes of it; the namespace and its wires are pretended.

Real rules in a real namespace are tests/network's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.errors import BootCode, CommandFailed, SammyError
from cc_sammy.firewall import boot_files, dry_run, probe_packets
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.fake import FakeHost

POLICY = Policy(8443, *networks.parse(["10.1.0.0/24", "fd01::/64"], "test"), ssh="drop")
STRANGERS = probe_packets.DOCUMENTATION_ADDRESSES[4] + probe_packets.DOCUMENTATION_ADDRESSES[6]


def enforced(device: str, source: str, port: int) -> bool:
    """Tell what POLICY's rules let through."""
    if device == "probe1":
        return True
    return port not in (8443, 22) or (port == 8443 and source not in STRANGERS)


class Namespace:
    """The pretended namespace: which SYNs its rules let through, its `ip`, and the backend whose load is counted."""

    def __init__(self) -> None:
        self.lets: Callable[[str, str, int], bool] = enforced
        self.host = FakeHost()
        self.loads: list[Policy] = []
        self.dead: tuple[str, ...] = ()
        self.refusal: Exception | None = None

    def load_in(self, host: FakeHost, policy: Policy) -> None:
        assert host is self.host
        if self.refusal is not None:
            raise self.refusal
        self.loads.append(policy)

    @property
    def backend(self) -> Any:
        return SimpleNamespace(load_in=self.load_in)

    def probe(self, device: str, peer: str) -> Any:
        outer = self

        class Probe:
            def __enter__(self) -> Probe:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def wait_until_answered(self, source: str, target: str, port: int) -> bool:
                assert not outer.loads, "a wire is awaited before the rules are there"
                return device not in outer.dead and target not in outer.dead

            def answered(self, source: str, target: str, ports: Sequence[int], last: int) -> dict[int, bool]:
                assert len(outer.loads) == 1 and last == ports[-1], "loaded once, and the unguarded port comes last"
                return {port: outer.lets(device, source, port) for port in ports}

        return Probe()


@pytest.fixture
def namespace(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    fs.create_dir(boot_files.FOLDER)
    one = Namespace()

    def refuse(address: tuple[str, int], timeout: float) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(dry_run, "_enter_netns", lambda: None)
    monkeypatch.setattr(dry_run, "Host", lambda: one.host)
    monkeypatch.setattr(probe_packets, "PacketProbe", one.probe)
    monkeypatch.setattr(socket, "create_connection", refuse)  # nobody listens there, which is an answer
    return one


def test_rules_that_do_as_they_should_pass_and_are_not_tried_again(namespace: Namespace) -> None:
    assert dry_run.check_once(FakeHost(), POLICY, namespace.backend) == []
    assert dry_run.check_once(FakeHost(), POLICY, namespace.backend) == []
    assert namespace.loads == [POLICY]
    namespace.loads.clear()
    others = POLICY._replace(uplinks=("br-lan",))
    assert dry_run.check_once(FakeHost(), others, namespace.backend) == []
    assert namespace.loads == [others]


def test_the_wires_are_made_before_they_are_used(namespace: Namespace) -> None:
    assert dry_run.run(POLICY, namespace.backend).versions == (4, 6)
    assert namespace.host.calls == [("ip", "-batch", "-")] * 2


@pytest.mark.parametrize(
    ("lets", "said"),
    [
        (lambda device, source, port: True, "a stranger by IPv4 would be let in at the agent port"),
        (lambda device, source, port: True, "ssh by IPv6 would be open to strangers"),
        (
            lambda device, source, port: port != 8443 and enforced(device, source, port),
            "the allowed address 10.1.0.1 would not reach the agent port",
        ),
        (
            lambda device, source, port: port == 8443 and enforced(device, source, port),
            "other ports would be closed by IPv4",
        ),
        (
            lambda device, source, port: device == "probe0" and enforced(device, source, port),
            "a container on docker0 would not reach the agent port",
        ),
    ],
    ids=["stranger", "ssh", "allowed", "others", "container"],
)
def test_rules_that_would_lock_out_or_let_in_are_refused_before_the_machine_gets_them(
    namespace: Namespace, lets: Callable[[str, str, int], bool], said: str
) -> None:
    namespace.lets = lets
    with pytest.raises(SammyError, match="the rules failed their trial, nothing was changed") as caught:
        dry_run.check_once(FakeHost(), POLICY, namespace.backend)
    assert said in str(caught.value)
    assert not os.path.exists(dry_run.TRIED), "they are tried again"


def test_where_all_may_come_in_and_ssh_is_open_the_opposite_is_wrong(namespace: Namespace) -> None:
    namespace.lets = lambda device, source, port: port not in (22, 8443)
    found = dry_run.run(Policy(8443, allow_any=True), namespace.backend)
    assert found.problems[:2] == [
        "a stranger by IPv4 would be not let in at the agent port",
        "ssh by IPv4 would be closed to strangers",
    ]


def test_a_bridge_that_is_the_uplink_is_not_dockers(namespace: Namespace) -> None:
    namespace.lets = lambda device, source, port: device == "probe0" and enforced(device, source, port)
    assert dry_run.run(POLICY._replace(uplinks=("docker0",)), namespace.backend).problems == []


def test_loopback_that_is_closed_is_a_problem_and_a_listener_is_none(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(address: tuple[str, int], timeout: float) -> Any:
        if address[0] == "::1":
            raise TimeoutError("timed out")
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(socket, "create_connection", connect)
    assert dry_run.run(POLICY, namespace.backend).problems == [
        "the agent port would be closed over loopback (::1: timed out)"
    ]


def test_a_kernel_that_refuses_the_rules_refuses_the_apply(namespace: Namespace) -> None:
    namespace.refusal = CommandFailed(["nft", "-f", "-"], 1, "Error: Could not process rule: Operation not supported")
    with pytest.raises(SammyError, match="the kernel refused the rules in a trial, nothing was changed") as caught:
        dry_run.check_once(FakeHost(), POLICY, namespace.backend)
    assert "Operation not supported" in str(caught.value) and "`modprobe nf_tables`" in str(caught.value)


@pytest.mark.parametrize(
    ("dead", "refusal", "why"),
    [
        (("probe0", "198.18.0.1"), None, "the trial's own wire carries no IPv4"),
        (("2001:2::1",), None, "the trial's own wire carries no IPv6"),
        (("probe1",), None, "the trial's own bridge carries no IPv4"),
        ((), CommandFailed(["nft"], 127, "No such file or directory"), "No such file or directory"),
        ((), OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_a_trial_that_cannot_be_held_is_a_note_and_says_nothing_of_the_rules(
    namespace: Namespace, dead: tuple[str, ...], refusal: Exception | None, why: str
) -> None:
    namespace.dead, namespace.refusal = dead, refusal
    (note,) = dry_run.check_once(FakeHost(), POLICY, namespace.backend)
    assert note.startswith("the rules could not be tried beforehand (") and why in note
    assert not os.path.exists(dry_run.TRIED)


def test_without_veth_there_is_no_trial(namespace: Namespace) -> None:
    namespace.host.script(["ip"], 2, stderr="Error: Unknown device type.")
    found = dry_run.run(POLICY, namespace.backend)
    assert "Unknown device type" in found.unavailable and namespace.loads == []
    assert dry_run.NotAvailable.code is BootCode.DRY_RUN_UNAVAILABLE


def test_without_ipv6_the_rules_are_tried_with_ipv4_and_the_note_says_so(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "_prepare", lambda host: (4,))
    assert dry_run.check_once(FakeHost(), POLICY, namespace.backend) == [
        "the rules were tried with IPv4 only: this machine has no IPv6"
    ]


def test_a_full_disk_costs_no_more_than_the_next_trial(namespace: Namespace, fs: FakeFilesystem) -> None:
    fs.set_disk_usage(1)
    assert dry_run.check_once(FakeHost(), POLICY, namespace.backend) == []
    assert not os.path.exists(dry_run.TRIED)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC])
def test_a_kernel_that_gives_no_namespace_is_no_verdict(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked: list[tuple[int, str]] = []

    def unshare(flags: int) -> int:
        asked.append((flags, threading.current_thread().name))
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(unshare=unshare))
    found = dry_run.run(POLICY, Namespace().backend)
    assert os.strerror(number) in found.unavailable and found.problems == [] and found.refused is None
    assert asked == [(dry_run.CLONE_NEWNET, "firewall-trial")], "never in the machine's own namespace, nor our thread"
