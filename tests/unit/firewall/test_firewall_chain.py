# SPDX-License-Identifier: Apache-2.0
"""The iptables chain: golden texts, comparison with `iptables -S`, the old trap told from other software's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_sammy.firewall.backends import foreign_rules
from cc_sammy.firewall.model import iptables_chain, networks, port_rules
from cc_sammy.firewall.model import policy as policy_module

GOLDEN = Path(__file__).parent / "golden"
CLOUDFLARE = policy_module.Policy(8443, *networks.parse(["cloudflare"], "test"), ssh="drop", backend="iptables")
CONNTRACK = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
LOOPBACK = "-A INPUT -i lo -j ACCEPT"


@pytest.mark.parametrize("name", ["cloudflare.nft", "cloudflare.rules4", "cloudflare.rules6"])
def test_the_rendered_rules_are_golden(name: str) -> None:
    rendered = {
        "cloudflare.nft": lambda: port_rules.text(CLOUDFLARE._replace(backend="nftables")),
        "cloudflare.rules4": lambda: iptables_chain.text(CLOUDFLARE, 4),
        "cloudflare.rules6": lambda: iptables_chain.text(CLOUDFLARE, 6),
    }
    assert rendered[name]() == (GOLDEN / name).read_text()


def test_the_order_is_the_peers_final_one() -> None:
    rules = [line.text for line in iptables_chain.lines(CLOUDFLARE, 4)]
    assert rules[0] == "-A SAMMY -i lo -j ACCEPT"
    assert [rule.split()[3] for rule in rules[1:3]] == ["docker0", "br-+"]
    assert [rule.split()[3] for rule in rules[3:18]] == list(reversed(networks.CLOUDFLARE[:15]))
    assert rules[18:] == [
        "-A SAMMY -p tcp -m tcp --dport 8443 -j DROP",
        "-A SAMMY -p udp -m udp --dport 8443 -j DROP",
        "-A SAMMY -p tcp -m tcp --dport 22 -j DROP",
    ]


def test_a_bridge_that_is_the_uplink_is_closed_before_all_bridges_are_opened() -> None:
    rules = [line.text for line in iptables_chain.lines(CLOUDFLARE._replace(uplinks=("br-lan", "docker0")), 4)]
    closed = rules.index("-A SAMMY -i br-lan -p tcp -m tcp --dport 8443 -j DROP")
    opened = rules.index("-A SAMMY -i br-+ -p tcp -m tcp --dport 8443 -j ACCEPT")
    assert max(place for place, rule in enumerate(rules) if " -s " in rule) < closed < opened
    assert not any("docker0" in rule for rule in rules)


def printed(policy: policy_module.Policy, *before: str) -> str:
    """What `iptables -v -S` prints for it."""
    rules = [line.text.replace(" -j ", " -c 3 180 -j ") for line in iptables_chain.lines(policy, 4)]
    head = ["-P INPUT ACCEPT -c 0 0", "-N SAMMY", *before, "-A INPUT -c 9 540 -j SAMMY"]
    return "\n".join([*head, *rules]) + "\n"


def test_the_kernel_holding_it_is_no_difference_and_counters_are_read() -> None:
    listing = iptables_chain.parse(printed(CLOUDFLARE))
    assert iptables_chain.differences(CLOUDFLARE, 4, listing) == []
    assert iptables_chain.jump_lines(listing) == ()
    assert listing.dropped[-1] == ("-A SAMMY -p tcp -m tcp --dport 22 -j DROP", 3, 180)


def test_every_kind_of_damage_is_named() -> None:
    late = iptables_chain.parse(printed(CLOUDFLARE, "-A INPUT -c 1 1 -j ACCEPT"))
    assert iptables_chain.differences(CLOUDFLARE, 4, late) == [
        "IPv4 INPUT jumps to SAMMY at place 2, so 1 rules come before it"
    ]
    assert iptables_chain.jump_lines(late) == ("-D INPUT -j SAMMY", "-I INPUT 1 -j SAMMY")
    twice = iptables_chain.parse(printed(CLOUDFLARE, "-A INPUT -c 1 1 -j SAMMY"))
    assert iptables_chain.differences(CLOUDFLARE, 4, twice) == ["IPv4 INPUT jumps to SAMMY 2 times"]
    assert "is missing" in iptables_chain.differences(CLOUDFLARE, 4, iptables_chain.parse("-P INPUT ACCEPT\n"))[0]
    other = CLOUDFLARE._replace(ssh="open")
    assert iptables_chain.differences(other, 4, iptables_chain.parse(printed(CLOUDFLARE))) == [
        "IPv4 chain SAMMY: extra rule at place 21: -A SAMMY -p tcp -m tcp --dport 22 -j DROP"
    ]


@pytest.mark.parametrize(
    ("policy", "rules", "trap"),
    [
        ("DROP", [], True),
        ("DROP", [CONNTRACK], True),
        ("DROP", [CONNTRACK, LOOPBACK, "-A INPUT -i docker0 -j ACCEPT", "-A INPUT -i br-+ -j ACCEPT"], True),
        ("DROP", [CONNTRACK, LOOPBACK, "-A INPUT -s 104.16.0.0/13 -p tcp -m tcp --dport 8443 -j ACCEPT"], True),
        ("ACCEPT", [CONNTRACK, LOOPBACK], False),
        ("DROP", [LOOPBACK, CONNTRACK], False),
        ("DROP", [CONNTRACK, LOOPBACK, "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"], False),
        ("DROP", [CONNTRACK, LOOPBACK, "-A INPUT -j ufw-before-input"], False),
        ("DROP", ["-A INPUT -p tcp -m tcp --dport 8443 -j ACCEPT"], False),
    ],
)
def test_the_old_trap_is_told_from_other_rules(policy: str, rules: list[str], trap: bool) -> None:
    assert foreign_rules.is_legacy_trap(policy, rules) is trap


def test_active_firewalls_are_named_with_what_opens_them() -> None:
    chains = (
        {"family": "ip", "table": "filter", "name": "ufw-before-input"},
        {"family": "inet", "table": "firewalld", "name": "x"},
    )
    seen = foreign_rules.ForeignRules(chains, None, None)
    assert seen.active() == ["ufw", "firewalld"]
    notes = foreign_rules.warnings(8443, seen)
    assert "`ufw allow 8443/tcp`" in notes[0]
    assert "--add-port=8443/tcp" in notes[1]
