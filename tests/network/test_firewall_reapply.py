# SPDX-License-Identifier: Apache-2.0
"""Applying again and changing lists under fire: no allowed packet lost, no stranger let through, in no instant.

Each prober sends over 50,000 packets a second; kernel counters before and behind our rules tell what became of them.
The peer's order of iptables calls runs in the same test under the same probers and must fail it: they can see a gap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy.firewall import dry_run, enforce, lock
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model import policy as policy_module
from tests.network.firewall_lab import AGENT, BACKENDS, Lab, MachineHost, inside, journal_script, wait_until
from tests.quiet_machine import TooBusy, measured

pytestmark = [pytest.mark.needs("root"), pytest.mark.alone]

TIMES = 100
PACKETS_A_SECOND = 50_000  # of each prober
ROLES = ("edge", "stranger", "vm")
EDGE = ["10.91.1.0/24", "fd91:1::/64"]
LONG = policy_module.Policy(AGENT, *networks.parse(["cloudflare", *EDGE], "test"), ssh="drop")
SHORT = policy_module.Policy(AGENT, *networks.parse([*EDGE, "192.0.2.0/24", "2001:db8::/32"], "test"), ssh="drop")
NETWORKS = ([str(one) for one in LONG.allow4], [str(one) for one in LONG.allow6])


@pytest.fixture(params=BACKENDS)
def vm(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[MachineHost]:
    monkeypatch.setattr(lock, "LOCK", str(tmp_path / "firewall.lock"))
    # the trial is another test's; here it would only thin out the applies
    monkeypatch.setattr(dry_run, "check_once", lambda *_: [])
    with inside(lab.names["vm"], str(tmp_path)):
        yield MachineHost(lab.names["vm"], variant=request.param.removeprefix("iptables-"))
    lab.clear()


def of_backend(policy: policy_module.Policy, name: str) -> policy_module.Policy:
    return policy._replace(backend=name.partition("-")[0])


def lost(counted: dict[str, int], role: str) -> int:
    return counted[f"{role}_before"] - counted[f"{role}_behind"]


def changes_under_fire(
    lab: Lab, vm: MachineHost, long: policy_module.Policy, short: policy_module.Policy
) -> dict[str, int]:
    """Apply and change under all probers; fail on any packet; return the rate of each prober."""
    lab.count_around()
    with lab.floods(*ROLES):
        wait_until(lambda: all(lab.counted()[f"{role}_before"] for role in ROLES), "all probers send")
        first, begun = lab.counted(), time.monotonic()
        for _ in range(TIMES):
            enforce.apply(vm, long)
        for number in range(TIMES):
            enforce.apply(vm, long if number % 2 else short)
        last, seconds = lab.counted(), time.monotonic() - begun
    ours = lab.settled()
    rates = {role: round((last[f"{role}_before"] - first[f"{role}_before"]) / seconds) for role in ROLES}
    print(f"{2 * TIMES} changes in {seconds:.1f} s under {rates} packets/s: {ours}")
    assert (lost(ours, "edge"), lost(ours, "vm"), ours["stranger_behind"]) == (0, 0, 0)
    return rates


@measured
def test_no_packet_lost_and_none_let_through_where_the_journals_order_fails(
    lab: Lab, vm: MachineHost, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["vm"]
    long, short = of_backend(LONG, name), of_backend(SHORT, name)
    enforce.apply(vm, long)
    rates = changes_under_fire(lab, vm, long, short)
    if min(rates.values()) < PACKETS_A_SECOND:
        raise TooBusy(f"the machine gave the probers too little: {rates}")

    enforce.remove(vm)
    script = journal_script("legacy" if name == "iptables-legacy" else "nft", NETWORKS, AGENT)
    lab.sh("vm", script)
    lab.count_around()
    with lab.floods(*ROLES):

        def seen() -> bool:
            lab.sh("vm", script)
            now = lab.counted()
            return min(lost(now, "edge"), lost(now, "vm"), now["stranger_behind"]) > 200

        wait_until(seen, "the journal's order loses and lets through hundreds")
    print(f"{name}: the journal's order: {lab.settled()}")


@measured
def test_no_stranger_is_served_where_the_journals_order_serves(
    lab: Lab, vm: MachineHost, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["vm"]
    policy = of_backend(LONG, name)
    enforce.apply(vm, policy)
    with lab.tries("stranger") as stranger, lab.tries("edge") as edge:
        for _ in range(TIMES):
            enforce.apply(vm, policy)
    print(f"{name}: replies and tries of the stranger {stranger}, of the edge {edge}")
    assert stranger[0] == 0
    if stranger[1] <= TIMES or edge[0] <= TIMES:
        raise TooBusy(f"{TIMES} tries were not made while the rules were applied: {stranger}, {edge}")

    enforce.remove(vm)
    script = journal_script("legacy" if name == "iptables-legacy" else "nft", NETWORKS, AGENT)
    served = 0
    deadline = time.monotonic() + 120
    while not served and time.monotonic() < deadline:
        lab.sh("vm", script)
        with lab.tries("stranger") as naive:
            for _ in range(20):
                lab.sh("vm", script)
        served += naive[0]
    if not served:
        lab.clear()
        raise TooBusy("no stranger was served by the journal's order, so this test could not see one")
