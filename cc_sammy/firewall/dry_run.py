# SPDX-License-Identifier: Apache-2.0
"""A dry run of the rules in a throw-away network namespace, before the machine gets them.

A thread enters a namespace of its own (the rest of the process stays), loads the rules there and sends SYNs over veth
pairs, from an allowed and from a disallowed address, by both families, and connects over loopback. An answer of any
kind means let through. Packets of one link arrive in order, so a last SYN to an unguarded port, which must be answered,
shows that all verdicts are in: nothing waits for a timeout. The namespace ends with the thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from cc_sammy.common import files
from cc_sammy.errors import BootCode, CommandFailed, SammyError
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.model import port_rules
from cc_sammy.firewall.model.policy import SSH_PORT, Policy
from cc_sammy.host.host import Host

if TYPE_CHECKING:
    from cc_sammy.firewall.probe_packets import PacketProbe

TRIED = boot_files.FOLDER + "/tried"
CLONE_NEWNET = 0x40000000
ADDRESS = {4: "198.18.0.1", 6: "2001:2::1"}  # the networks set aside for benchmarks
LINKS = """\
link set lo up
link add trial0 address 02:00:00:00:00:01 type veth peer name probe0
link add docker0 address 02:00:00:00:00:02 type veth peer name probe1
link set trial0 arp off up
link set docker0 arp off up
link set probe0 up
link set probe1 up
addr add 198.18.0.1/32 dev trial0
route add default dev trial0
route add 172.17.0.0/16 dev docker0
"""
LINKS6 = """\
addr add 2001:2::1/128 dev trial0 nodad
route add ::/0 dev trial0
"""
CONTAINER = "172.17.0.2"


class NotAvailable(SammyError):
    """The trial itself could not be held; says nothing about the rules."""

    code = BootCode.DRY_RUN_UNAVAILABLE


class DryRunResult:
    """What a dry run showed: `problems` of the rules, or why there was none (`unavailable`)."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.unavailable = ""
        self.refused: CommandFailed | None = None
        self.versions: tuple[int, ...] = ()


def check_once(host: Host, policy: Policy, backend: ModuleType) -> list[str]:
    """Try a policy that was not tried on this kernel before; return notes for the operator.

    :raises SammyError: the rules would lock somebody out or let somebody in; nothing was changed.
    """
    text = f"{os.uname().release} {policy.backend}\n{port_rules.text(policy)}"
    if boot_files.matches(TRIED, text):
        return []
    result = run(policy, backend)
    if result.refused is not None and result.refused.returncode != 127:
        raise SammyError(
            f"the kernel refused the rules in a trial, nothing was changed: {result.refused}",
            "`modprobe nf_tables` and `nft list ruleset` (for iptables-legacy `modprobe ip_tables`) must succeed; "
            "then run sammy firewall apply",
        )
    if result.problems:
        raise SammyError(f"the rules failed their trial, nothing was changed: {'; '.join(result.problems)}")
    if result.unavailable or result.refused:
        return [f"the rules could not be tried beforehand ({result.unavailable or result.refused})"]
    if 6 not in result.versions:
        return ["the rules were tried with IPv4 only: this machine has no IPv6"]
    with contextlib.suppress(OSError):  # on a full disk the next apply tries them again, no more
        files.write_text(TRIED, text, mode=0o600)
    return []


def run(policy: Policy, backend: ModuleType) -> DryRunResult:
    """Run the checks in a thread of its own; never raises."""
    result = DryRunResult()
    known = threading.Event()

    def inside() -> None:
        with contextlib.ExitStack() as wires:
            try:
                _enter_netns()
                result.problems = _run_checks(policy, backend, result, wires)
            except CommandFailed as error:
                result.refused = error
            except (OSError, SammyError) as error:
                result.unavailable = str(error)
            finally:
                known.set()  # closing the sockets takes 15 ms each on all CPUs; the apply need not wait

    threading.Thread(target=inside, name="firewall-trial").start()
    known.wait()
    return result


def _enter_netns() -> None:
    """Take this thread, and what it starts, to an empty network namespace."""
    import ctypes  # os.unshare came with Python 3.12

    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise NotAvailable(f"no network namespace: {os.strerror(ctypes.get_errno())}")


def _run_checks(policy: Policy, backend: ModuleType, result: DryRunResult, wires: contextlib.ExitStack) -> list[str]:
    from cc_sammy.firewall.probe_packets import (  # late: most applies have been tried before
        PacketProbe,
        pick_allowed_source,
        pick_disallowed_source,
    )

    host = Host()
    versions = result.versions = _prepare(host)
    world = wires.enter_context(PacketProbe("probe0", "02:00:00:00:00:01"))
    bridge = wires.enter_context(PacketProbe("probe1", "02:00:00:00:00:02"))
    free = next(port for port in (1, 2) if port != policy.agent_port)
    for version in versions:
        source = pick_disallowed_source(policy, version) or pick_allowed_source(policy, version)
        if source and not world.wait_until_answered(source, ADDRESS[version], free):
            raise NotAvailable(f"the trial's own wire carries no IPv{version}")
    if not bridge.wait_until_answered(CONTAINER, ADDRESS[4], free):
        raise NotAvailable("the trial's own bridge carries no IPv4")
    backend.load_in(host, policy)
    problems = []
    for version in versions:
        problems += _from_world(policy, version, world, free)
        problems += _over_loopback(policy.agent_port, version)
    if "docker0" not in policy.uplinks:
        answers = bridge.answered(CONTAINER, ADDRESS[4], [policy.agent_port, free], last=free)
        if not answers[policy.agent_port]:
            problems.append("a container on docker0 would not reach the agent port")
    return problems


def _prepare(host: Host) -> tuple[int, ...]:
    """Make the wires; return the families that can be tried."""
    for name in ("all", "default"):
        with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as file:
            file.write("0")
    try:
        host.run(["ip", "-batch", "-"], input=LINKS)
    except CommandFailed as error:
        raise NotAvailable(str(error)) from error
    return (4, 6) if host.run(["ip", "-batch", "-"], input=LINKS6, check=False).returncode == 0 else (4,)


def _from_world(policy: Policy, version: int, world: PacketProbe, free: int) -> list[str]:
    from cc_sammy.firewall.probe_packets import pick_allowed_source, pick_disallowed_source

    port = policy.agent_port
    problems = []
    stranger, allowed = pick_disallowed_source(policy, version), pick_allowed_source(policy, version)
    if stranger:
        answers = world.answered(stranger, ADDRESS[version], [port, SSH_PORT, free], last=free)
        if answers[port] != policy.allow_any:
            what = "let in" if answers[port] else "not let in"
            problems.append(f"a stranger by IPv{version} would be {what} at the agent port")
        if answers[SSH_PORT] != (policy.ssh == "open"):
            problems.append(f"ssh by IPv{version} would be {'open' if answers[SSH_PORT] else 'closed'} to strangers")
        if not answers[free]:
            problems.append(f"other ports would be closed by IPv{version}")
    if allowed and not world.answered(allowed, ADDRESS[version], [port, free], last=free)[port]:
        problems.append(f"the allowed address {allowed} would not reach the agent port")
    return problems


def _over_loopback(port: int, version: int) -> list[str]:
    import socket

    address = "127.0.0.1" if version == 4 else "::1"
    try:
        socket.create_connection((address, port), timeout=2).close()
    except ConnectionRefusedError:
        return []
    except OSError as error:
        return [f"the agent port would be closed over loopback ({address}: {error})"]
    return []
