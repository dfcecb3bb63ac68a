# SPDX-License-Identifier: Apache-2.0
"""Which rules guard the agent's port and ssh: a pure function of the policy.

The order is the meaning: loopback and our own containers, then the allowed networks, then the drops. The policy stays
accept and nothing matches connections, so no rule here can break what the machine itself starts.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cc_sammy.errors import SammyError
from cc_sammy.firewall.model.networks import Network4, Network6
from cc_sammy.firewall.model.nft_table import (
    ACCEPT,
    DROP,
    AddressSet,
    Chain,
    Rule,
    Table,
    address_in,
    from_interface,
    not_from_interface,
    redirected,
    render,
    to_port,
)

TABLE = "sammy"
SSH_PORT = 22


class Policy(NamedTuple):
    """Who may reach what. `ssh` is `open`, `drop` or `networks` (then `ssh4` and `ssh6` are let in).

    `uplinks` are the interfaces that carry the default route: a bridge among them is the network's, not Docker's.
    `guard_published` closes the ports that containers publish to all but the allowed networks.
    """

    agent_port: int
    allow4: tuple[Network4, ...] = ()
    allow6: tuple[Network6, ...] = ()
    allow_any: bool = False
    ssh: str = "open"
    ssh4: tuple[Network4, ...] = ()
    ssh6: tuple[Network6, ...] = ()
    uplinks: tuple[str, ...] = ()
    backend: str = "nftables"
    guard_published: bool = False

    def checked(self) -> Policy:
        """Return itself.

        :raises SammyError: when nobody at all would be allowed, or the agent's port is ssh's.
        """
        if not (self.allow_any or self.allow4 or self.allow6):
            raise SammyError(
                "firewall.allow is empty: the control plane could never reach the agent",
                "Set it to cloudflare, any, or a list of networks",
            )
        if self.ssh == "networks" and not (self.ssh4 or self.ssh6):
            raise SammyError("firewall.ssh is an empty list", "Write drop to close ssh, or list networks")
        if self.ssh not in ("open", "drop", "networks"):
            raise SammyError(
                f"firewall.ssh is {self.ssh!r}", "Write drop, drop-always, open, ranges or a list of networks"
            )
        if not 0 < self.agent_port < 65536 or self.agent_port == SSH_PORT:
            raise SammyError(
                f"agent.port {self.agent_port} cannot be guarded", "Choose a port from 1 to 65535 other than 22"
            )
        for name in self.uplinks:
            if not re.fullmatch(r"[A-Za-z0-9_.:@+-]{1,15}", name):
                raise SammyError(f"the interface of the default route has a name nft cannot quote: {name!r}")
        return self


def build(policy: Policy) -> Table:
    """Return the table that enforces the policy."""
    allow4 = AddressSet("allow4", 4, policy.allow4)
    allow6 = AddressSet("allow6", 6, policy.allow6)
    ssh4 = AddressSet("ssh4", 4, policy.ssh4)
    ssh6 = AddressSet("ssh6", 6, policy.ssh6)
    port = policy.agent_port
    agent = to_port("tcp", port)
    rules = [Rule("loopback may do anything", (from_interface("lo"), ACCEPT)), *_containers(policy)]
    if policy.allow_any:
        rules.append(Rule(f"anyone may reach agent port {port}", (agent, ACCEPT)))
    else:
        for group in (allow4, allow6):
            name = f"allowed IPv{group.version} networks may reach agent port {port}"
            rules.append(Rule(name, (agent, address_in(group, "saddr"), ACCEPT)))
    rules.append(Rule(f"nobody else may reach agent port {port} by tcp", (agent, DROP)))
    rules.append(Rule(f"nobody else may reach agent port {port} by udp", (to_port("udp", port), DROP)))
    rules += _ssh(policy, ssh4, ssh6)
    chains = [Chain("input", "input", tuple(rules))]
    if policy.guard_published and not policy.allow_any:
        chains.append(Chain("forward", "forward", _published(policy, allow4, allow6)))
    return Table(TABLE, (allow4, allow6, ssh4, ssh6), tuple(chains))


def bridge_uplinks(policy: Policy) -> tuple[str, ...]:
    """Return the uplinks that look like Docker's bridges and are not."""
    return tuple(name for name in policy.uplinks if name.startswith("br-"))


def _published(policy: Policy, allow4: AddressSet, allow6: AddressSet) -> tuple[Rule, ...]:
    """Close published container ports, which never pass the input chain: Docker turns their packets to the container.

    That turning is conntrack's own, so these rules may ask for it; without it no packet reaches a container at all.
    """
    rules = []
    if "docker0" not in policy.uplinks:
        rules.append(Rule("containers on docker0 may reach published ports", (from_interface("docker0"), ACCEPT)))
    others = tuple(not_from_interface(name) for name in bridge_uplinks(policy))
    rules.append(Rule("containers on br-* may reach published ports", (from_interface("br-*"), *others, ACCEPT)))
    for group in (allow4, allow6):
        name = f"allowed IPv{group.version} networks may reach published ports"
        rules.append(Rule(name, (address_in(group, "saddr"), ACCEPT)))
    rules.append(Rule("nobody else may reach published ports", (redirected(), DROP)))
    return tuple(rules)


def _containers(policy: Policy) -> list[Rule]:
    """Accept the agent's port from Docker's bridges: docker0 and br-* unless it is the way to the world."""
    agent = to_port("tcp", policy.agent_port)
    rules = []
    if "docker0" not in policy.uplinks:
        name = f"containers on docker0 may reach agent port {policy.agent_port}"
        rules.append(Rule(name, (from_interface("docker0"), agent, ACCEPT)))
    others = tuple(not_from_interface(name) for name in bridge_uplinks(policy))
    name = f"containers on br-* may reach agent port {policy.agent_port}"
    rules.append(Rule(name, (from_interface("br-*"), *others, agent, ACCEPT)))
    return rules


def _ssh(policy: Policy, ssh4: AddressSet, ssh6: AddressSet) -> list[Rule]:
    if policy.ssh == "open":
        return []
    port = to_port("tcp", SSH_PORT)
    rules = []
    if policy.ssh == "networks":
        for group in (ssh4, ssh6):
            name = f"allowed IPv{group.version} networks may reach ssh"
            rules.append(Rule(name, (port, address_in(group, "saddr"), ACCEPT)))
    return [*rules, Rule("nobody else may reach ssh", (port, DROP))]


def text(policy: Policy) -> str:
    """Return the nft text of the policy, for one `nft -f`."""
    return render(build(policy))
