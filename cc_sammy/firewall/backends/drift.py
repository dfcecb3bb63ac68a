# SPDX-License-Identifier: Apache-2.0
"""Does the kernel hold what we put there? Compares a table with nft's JSON and says each difference in plain words.

A rule deleted by hand, a chain flushed by another tool or an admin's `nft flush ruleset` leave no trace elsewhere.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cc_sammy.firewall.model.nft_table import AddressSet, Chain, Network, Table
from cc_sammy.firewall.model.rule_order import order_differences

Objects = list[dict[str, Any]]


def differences(table: Table, listing: str) -> list[str]:
    """Return what `nft --json list table` shows differently from the table; empty when all is in force."""
    objects: Objects = json.loads(listing)["nftables"]
    problems = []
    for found in _of_kind(objects, "table"):
        if found.get("flags"):
            problems.append(f"table inet {table.name} is switched off by hand (flags {found['flags']})")
    problems += _strangers(table, objects)
    for group in table.sets:
        problems += _set_differences(table, group, objects)
    for chain in table.chains:
        problems += _chain_differences(table, chain, objects)
    return problems


def counters(listing: str) -> dict[str, dict[str, int]]:
    """Return packets and bytes of each counting rule, by the rule's name."""
    found: dict[str, dict[str, int]] = {}
    for rule in _of_kind(json.loads(listing)["nftables"], "rule"):
        for part in rule["expr"]:
            if isinstance(part.get("counter"), dict):
                found[rule.get("comment", in_words(rule["expr"]))] = dict(part["counter"])
    return found


def in_words(expressions: Iterable[Mapping[str, Any]]) -> str:
    """Return a rule's expressions as something near nft's own text."""
    return " ".join(_expression(part) for part in expressions)


def _of_kind(objects: Objects, kind: str) -> Objects:
    return [entry[kind] for entry in objects if kind in entry]


def _strangers(table: Table, objects: Objects) -> list[str]:
    """Name chains and sets in our table that we did not put there."""
    problems = []
    for kind, known in (("chain", table.chains), ("set", table.sets), ("map", ())):
        names = {item.name for item in known}
        for found in _of_kind(objects, kind):
            if found["name"] not in names:
                problems.append(f"extra {kind} {found['name']!r} in table inet {table.name}")
    return problems


def _set_differences(table: Table, group: AddressSet, objects: Objects) -> list[str]:
    where = f"set {group.name} of table inet {table.name}"
    found = [entry for entry in _of_kind(objects, "set") if entry["name"] == group.name]
    if not found:
        return [f"{where} is missing"]
    if found[0]["type"] != f"ipv{group.version}_addr":
        return [f"{where} holds {found[0]['type']}, not ipv{group.version}_addr"]
    held = _spans(network for element in found[0].get("elem", []) for network in _networks(element))
    wanted = _spans(group.networks)
    problems = [f"{where} lacks {span}" for span in sorted(wanted - held)]
    return problems + [f"{where} holds {span}, which is not allowed" for span in sorted(held - wanted)]


def _networks(element: Any) -> list[Network]:
    """Return the networks of one set element as nft prints it: address, prefix or range, perhaps annotated."""
    if isinstance(element, dict) and "elem" in element:
        element = element["elem"]["val"]
    if isinstance(element, str):
        return [ipaddress.ip_network(element)]
    if "prefix" in element:
        return [ipaddress.ip_network(f"{element['prefix']['addr']}/{element['prefix']['len']}")]
    first, last = (ipaddress.ip_address(text) for text in element["range"])
    return list(ipaddress.summarize_address_range(first, last))


def _spans(networks: Iterable[Network]) -> set[str]:
    """Return the networks collapsed: nft and the kernel may merge neighbours and print them as ranges."""
    return {str(network) for network in ipaddress.collapse_addresses(list(networks))}  # type: ignore[type-var]


def _chain_differences(table: Table, chain: Chain, objects: Objects) -> list[str]:
    where = f"chain {chain.name} of table inet {table.name}"
    found = [entry for entry in _of_kind(objects, "chain") if entry["name"] == chain.name]
    if not found:
        return [f"{where} is missing"]
    wanted = {"type": "filter", "hook": chain.hook, "prio": chain.priority, "policy": "accept"}
    problems = [
        f"{where} has {key} {found[0].get(key)}, not {value}"
        for key, value in wanted.items()
        if found[0].get(key) != value
    ]
    rules = [entry for entry in _of_kind(objects, "rule") if entry["chain"] == chain.name]
    return problems + _rule_differences(where, chain, rules)


def _rule_differences(where: str, chain: Chain, rules: Objects) -> list[str]:
    names = {_key(rule.json): rule.name for rule in chain.rules}
    return order_differences(where, names, [(_key(rule["expr"]), in_words(rule["expr"])) for rule in rules])


def _key(expressions: Iterable[Mapping[str, Any]]) -> str:
    """Return a comparable form: counters vary by traffic, so only their presence counts."""
    return json.dumps([{"counter": None} if "counter" in part else part for part in expressions], sort_keys=True)


def _expression(part: Mapping[str, Any]) -> str:
    if "match" in part:
        match = part["match"]
        op = "" if match["op"] == "==" else f"{match['op']} "
        return f"{_operand(match['left'])} {op}{_operand(match['right'])}"
    kind, value = next(iter(part.items()))
    return kind if value is None or kind == "counter" else f"{kind} {_operand(value)}"


def _operand(value: Any) -> str:
    if isinstance(value, dict) and "meta" in value:
        return str(value["meta"]["key"])
    if isinstance(value, dict) and "payload" in value:
        payload = value["payload"]
        return f"{payload.get('protocol')} {payload.get('field')}"
    return value if isinstance(value, str) else json.dumps(value)
