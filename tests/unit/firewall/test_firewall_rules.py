# SPDX-License-Identifier: Apache-2.0
"""Rendering, parsing and the comparison with the kernel's JSON, without a kernel."""

from __future__ import annotations

import copy
import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from cc_sammy.errors import SammyError
from cc_sammy.firewall import metadata_table
from cc_sammy.firewall.backends import drift
from cc_sammy.firewall.model import networks, port_rules
from cc_sammy.firewall.model import policy as policy_module
from cc_sammy.firewall.model.nft_table import Table, render
from tests.firewall_config import METADATA

POLICY = policy_module.Policy(
    8443,
    (IPv4Network("10.1.0.0/24"),),
    (IPv6Network("fd01::/64"),),
    ssh="drop",
    uplinks=("br-lan", "eth0"),
)

GOLDEN = """\
# Written by sammy; `sammy firewall apply` writes it anew.
add table inet sammy
add set inet sammy allow4 { type ipv4_addr; flags interval; }
add set inet sammy allow6 { type ipv6_addr; flags interval; }
add set inet sammy ssh4 { type ipv4_addr; flags interval; }
add set inet sammy ssh6 { type ipv6_addr; flags interval; }
add chain inet sammy input { type filter hook input priority -5; policy accept; }
flush chain inet sammy input
flush set inet sammy allow4
add element inet sammy allow4 { 10.1.0.0/24 }
flush set inet sammy allow6
add element inet sammy allow6 { fd01::/64 }
flush set inet sammy ssh4
flush set inet sammy ssh6
add rule inet sammy input iifname "lo" accept comment "loopback may do anything"
add rule inet sammy input iifname "docker0" tcp dport 8443 accept comment \
"containers on docker0 may reach agent port 8443"
add rule inet sammy input iifname "br-*" iifname != "br-lan" tcp dport 8443 accept comment \
"containers on br-* may reach agent port 8443"
add rule inet sammy input tcp dport 8443 ip saddr @allow4 accept comment \
"allowed IPv4 networks may reach agent port 8443"
add rule inet sammy input tcp dport 8443 ip6 saddr @allow6 accept comment \
"allowed IPv6 networks may reach agent port 8443"
add rule inet sammy input tcp dport 8443 counter drop comment "nobody else may reach agent port 8443 by tcp"
add rule inet sammy input udp dport 8443 counter drop comment "nobody else may reach agent port 8443 by udp"
add rule inet sammy input tcp dport 22 counter drop comment "nobody else may reach ssh"
"""


def listing(table: Table) -> list[dict[str, Any]]:
    """What nft 1.0.6 prints for the table (the network tests hold this shape to the real nft)."""
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": table.name, "handle": 7}},
    ]
    for group in table.sets:
        entry: dict[str, Any] = {"family": "inet", "name": group.name, "table": table.name, "handle": 1}
        entry |= {"type": f"ipv{group.version}_addr", "flags": ["interval"]}
        if group.networks:
            entry["elem"] = [
                {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
                for network in group.networks
            ]
        objects.append({"set": entry})
    for chain in table.chains:
        facts = {"type": "filter", "hook": chain.hook, "prio": -5, "policy": "accept"}
        at = {"family": "inet", "table": table.name}
        objects.append({"chain": {**at, "name": chain.name, "handle": 3, **facts}})
        for handle, rule in enumerate(chain.rules, 10):
            expr = copy.deepcopy(rule.json)
            for part in expr:
                if "counter" in part:
                    part["counter"] = {"packets": 3, "bytes": 180}
            objects.append({"rule": {**at, "chain": chain.name, "handle": handle, "comment": rule.name, "expr": expr}})
    return objects


def compared(objects: list[dict[str, Any]]) -> list[str]:
    return drift.differences(port_rules.build(POLICY), json.dumps({"nftables": objects}))


def rules_at(objects: list[dict[str, Any]]) -> list[int]:
    return [place for place, entry in enumerate(objects) if "rule" in entry]


def test_the_text_is_golden() -> None:
    assert port_rules.text(POLICY) == GOLDEN


def test_rebuilding_deletes_in_the_same_text() -> None:
    lines = render(port_rules.build(POLICY), rebuild=True).splitlines()
    assert lines[1:4] == ["add table inet sammy", "delete table inet sammy", "add table inet sammy"]


def test_the_kernel_holding_it_is_no_difference() -> None:
    assert compared(listing(port_rules.build(POLICY))) == []


def test_each_missing_rule_is_named() -> None:
    table = port_rules.build(POLICY)
    for number, rule in enumerate(table.chains[0].rules):
        objects = listing(table)
        del objects[rules_at(objects)[number]]
        assert compared(objects) == [f"chain input of table inet sammy: rule missing: {rule.name}"]


def test_an_extra_rule_is_told_with_its_place_and_text() -> None:
    objects = listing(port_rules.build(POLICY))
    left = {"payload": {"protocol": "ip", "field": "saddr"}}
    expr = [{"match": {"op": "==", "left": left, "right": "192.0.2.1"}}, {"accept": None}]
    objects.insert(rules_at(objects)[0], {"rule": {"chain": "input", "handle": 99, "expr": expr}})
    assert compared(objects) == ["chain input of table inet sammy: extra rule at place 1: ip saddr 192.0.2.1 accept"]


def test_a_rule_twice_is_extra() -> None:
    objects = listing(port_rules.build(POLICY))
    objects.append(copy.deepcopy(objects[-1]))
    assert compared(objects) == ["chain input of table inet sammy: extra rule at place 9: tcp dport 22 counter drop"]


def test_a_rule_out_of_order_is_named() -> None:
    objects = listing(port_rules.build(POLICY))
    first = rules_at(objects)[0]
    objects.insert(first, objects.pop(rules_at(objects)[5]))
    assert compared(objects) == [
        "chain input of table inet sammy: rule out of order: nobody else may reach agent port 8443 by tcp"
    ]


def test_a_changed_rule_under_our_comment_is_missing_and_extra() -> None:
    objects = listing(port_rules.build(POLICY))
    rule = objects[rules_at(objects)[5]]["rule"]
    rule["expr"][-1] = {"accept": None}
    assert compared(objects) == [
        "chain input of table inet sammy: rule missing: nobody else may reach agent port 8443 by tcp",
        "chain input of table inet sammy: extra rule at place 6: tcp dport 8443 counter accept",
    ]


def test_sets_chains_and_a_dormant_table_are_told() -> None:
    objects = listing(port_rules.build(POLICY))
    objects[1]["table"]["flags"] = "dormant"
    chain = next(entry["chain"] for entry in objects if "chain" in entry)
    chain["prio"] = 10
    objects[2]["set"]["elem"] = ["198.51.100.7"]
    objects.append({"chain": {"name": "other"}})
    assert compared(objects) == [
        "table inet sammy is switched off by hand (flags dormant)",
        "extra chain 'other' in table inet sammy",
        "set allow4 of table inet sammy lacks 10.1.0.0/24",
        "set allow4 of table inet sammy holds 198.51.100.7/32, which is not allowed",
        "chain input of table inet sammy has prio 10, not -5",
    ]


def test_merged_ranges_compare_equal() -> None:
    policy = policy_module.Policy(8443, *networks.parse(["104.16.0.0/13", "104.24.0.0/14"], "allow"))
    table = port_rules.build(policy)
    objects = listing(table)
    objects[2]["set"]["elem"] = [{"range": ["104.16.0.0", "104.27.255.255"]}]
    assert drift.differences(table, json.dumps({"nftables": objects})) == []


def test_counters_are_read_by_name() -> None:
    text = json.dumps({"nftables": listing(port_rules.build(POLICY))})
    assert drift.counters(text)["nobody else may reach ssh"] == {"packets": 3, "bytes": 180}


def test_the_bundled_list_is_whole() -> None:
    found4, found6 = networks.parse(["cloudflare"], "firewall.allow")
    assert (len(found4), len(found6)) == (15, 7)
    assert all(network.is_global and network.prefixlen >= 12 for network in found4)
    assert all(network.is_global and network.prefixlen >= 29 for network in found6)


def test_every_wrong_network_is_named_at_once() -> None:
    with pytest.raises(SammyError) as caught:
        networks.parse(["10.1.2.3/8", "<html>", "10.0.0.0/8"], "firewall.allow")
    assert "firewall.allow: '10.1.2.3/8' has host bits set (10.0.0.0/8" in str(caught.value)
    assert "'<html>' is not a network" in str(caught.value)


def test_a_policy_that_allows_nobody_is_refused() -> None:
    with pytest.raises(SammyError, match=r"firewall\.allow is empty"):
        policy_module.Policy(8443).checked()


def test_guarding_the_port_of_ssh_is_refused() -> None:
    with pytest.raises(SammyError, match=r"agent\.port 22"):
        policy_module.Policy(22, allow_any=True).checked()


def test_a_quote_in_an_interface_name_is_refused() -> None:
    with pytest.raises(SammyError, match="cannot quote"):
        policy_module.Policy(8443, allow_any=True, uplinks=('br-"x',)).checked()


def test_metadata_closes_web_ports_only() -> None:
    text = render(metadata_table.build(METADATA, True))
    assert "flush chain inet sammy_metadata output" in text
    assert "ip daddr @metadata4 tcp dport { 80, 443 } counter drop" in text
    assert "meta skuid != 0 ip6 daddr @metadata6 tcp dport { 80, 443 } counter reject with tcp reset" in text
    assert "skuid" not in render(metadata_table.build(METADATA, False))
