# SPDX-License-Identifier: Apache-2.0
"""Rules of other software: the host's INPUT policy, ufw, firewalld. Always reported, hardly ever changed.

An accept rule of ours is not final: what another table drops stays dropped, so the operator is told what else closes
ports. One thing is changed unasked: the legacy trap of an old script, policy DROP behind rules that need conntrack,
which cut whole machines off when Docker was restarted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cc_sammy.common import files
from cc_sammy.errors import CommandFailed
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.model import iptables_chain, port_rules
from cc_sammy.host.host import Host

# thread-self: /proc/net shows the namespace of the process's first thread, whichever asks
LEGACY_TABLES = {4: "/proc/thread-self/net/ip_tables_names", 6: "/proc/thread-self/net/ip6_tables_names"}
LEGACY_TRAP_HEAD = (
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -i lo -j ACCEPT",
)
# a text: compiling it takes 2 ms of an apply that hardly ever needs it
LEGACY_TRAP_REST = (
    r"-A INPUT (-i (docker0|br-\+)( -p tcp -m tcp --dport \d+)?|-s [0-9a-f.:]+/\d+ -p tcp -m tcp --dport \d+) -j ACCEPT"
)


class DropPolicy(NamedTuple):
    """An INPUT chain of iptables whose policy is DROP."""

    variant: str
    version: int
    is_legacy_trap: bool

    @property
    def label(self) -> str:
        """Its name for a person."""
        return f"IPv{self.version} INPUT ({iptables_chain.program(self.variant, self.version)})"


def is_legacy_trap(policy: str, rules: Sequence[str]) -> bool:
    """Tell whether INPUT is the legacy trap, rule for rule, or its beginning: the script could die anywhere.

    :param rules: as `iptables -S` prints them, our own jump left out.
    """
    head, rest = tuple(rules[: len(LEGACY_TRAP_HEAD)]), rules[len(LEGACY_TRAP_HEAD) :]
    return (
        policy == "DROP"
        and head == LEGACY_TRAP_HEAD[: len(head)]
        and all(re.fullmatch(LEGACY_TRAP_REST, rule) for rule in rest)
    )


class ForeignRules(NamedTuple):
    """What the kernel holds of others, read once: nft's chains, and legacy's tables where they exist."""

    chains: tuple[Mapping[str, Any], ...] | None
    legacy4: iptables_chain.ChainDump | None
    legacy6: iptables_chain.ChainDump | None

    def may_hold(self, backend: str) -> bool:
        """Tell whether a backend that is not in use still holds anything of ours."""
        own = {"nftables": ("inet", port_rules.TABLE), "iptables": ("ip ip6", iptables_chain.CHAIN)}[backend]
        if backend == "iptables" and any(one is not None and one.exists for one in (self.legacy4, self.legacy6)):
            return True
        if any(os.path.exists(f"{boot_files.FOLDER}/{name}") for name in boot_files.FILES[backend]):
            return True
        key = "table" if backend == "nftables" else "name"
        return any(one["family"] in own[0].split() and one[key] == own[1] for one in self.chains or ())

    def drop_policies(self, host: Host) -> list[DropPolicy]:
        """Return the INPUT chains of iptables, either variant, that drop by policy."""
        found = []
        for version, family, legacy in ((4, "ip", self.legacy4), (6, "ip6", self.legacy6)):
            key = (family, "filter", "INPUT")
            by_nft = any(
                _drops_input(one) and (one["family"], one["table"], one["name"]) == key for one in self.chains or ()
            )
            listings = {"nft": _listing(host, "nft", version) if by_nft else None, "legacy": legacy}
            for variant, listing in listings.items():
                if listing is not None and listing.policy == "DROP":
                    rules = [rule for rule in listing.input if rule != iptables_chain.JUMP]
                    found.append(DropPolicy(variant, version, is_legacy_trap(listing.policy, rules)))
        return found

    def active(self) -> list[str]:
        """Return which of ufw and firewalld have rules in the kernel."""
        found = []
        in_legacy = self.legacy4 is not None and any("-j ufw-" in rule for rule in self.legacy4.input)
        if in_legacy or any(one["name"] == "ufw-before-input" for one in self.chains or ()):
            found.append("ufw")
        if any(one["table"] == "firewalld" for one in self.chains or ()):
            found.append("firewalld")
        return found


def inspect(host: Host) -> ForeignRules:
    """Read the kernel once; legacy only where its tables exist, because reading would create them."""
    return ForeignRules(
        _chains(host),
        *(_listing(host, "legacy", version) if legacy_in_use(version) else None for version in (4, 6)),
    )


def legacy_in_use(version: int) -> bool:
    """Tell whether the kernel has legacy's filter table."""
    return "filter" in (files.read_text(LEGACY_TABLES[version]) or "").split()


def open_input(host: Host, mode: str, found: ForeignRules) -> list[str]:
    """Set INPUT's policy to ACCEPT where `mode` is `accept` or INPUT is the legacy trap; return what was done or is.

    :raises SammyError: iptables refused.
    """
    notes = []
    for closed in found.drop_policies(host):
        if mode == "accept" or closed.is_legacy_trap:
            why = "" if mode == "accept" else ": it was the trap of an old firewall script"
            host.run([iptables_chain.program(closed.variant, closed.version), "-w", "10", "-P", "INPUT", "ACCEPT"])
            notes.append(f"{closed.label}: policy set from DROP to ACCEPT{why}")
        else:
            notes.append(
                f"{closed.label} has policy DROP: what its own rules do not accept stays closed "
                "(firewall.input_policy: accept changes that)"
            )
    return notes


def warnings(agent_port: int, found: ForeignRules) -> list[str]:
    """Return what active firewall programs will still drop, and how to open it there."""
    how = {
        "ufw": f"`ufw allow {agent_port}/tcp`",
        "firewalld": f"`firewall-cmd --permanent --add-port={agent_port}/tcp` and `firewall-cmd --reload`",
    }
    return [
        f"{name} is active and may still drop tcp {agent_port} from allowed networks; {how[name]} opens it there"
        for name in found.active()
    ]


def status(host: Host) -> dict[str, Any]:
    """Return input chains that are closed, and other firewall programs at work."""
    found = inspect(host)
    return {
        "closed_elsewhere": [
            f"{one['family']} {one['table']} {one['name']}" for one in found.chains or () if _drops_input(one)
        ],
        "input_policy_drop": [closed.label for closed in found.drop_policies(host)],
        "other_firewalls": found.active(),
    }


def _listing(host: Host, variant: str, version: int) -> iptables_chain.ChainDump | None:
    try:
        return iptables_chain.parse(host.run([iptables_chain.program(variant, version), "-w", "10", "-v", "-S"]).stdout)
    except CommandFailed:
        return None


def _drops_input(one: Mapping[str, Any]) -> bool:
    return one.get("hook") == "input" and one.get("policy") == "drop" and one["table"] != port_rules.TABLE


def _chains(host: Host) -> tuple[Mapping[str, Any], ...] | None:
    result = host.run(["nft", "--json", "list", "chains"], check=False)
    if result.returncode != 0 or not result.stdout:
        return None
    return tuple(entry["chain"] for entry in json.loads(result.stdout)["nftables"] if "chain" in entry)
