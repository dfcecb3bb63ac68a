# SPDX-License-Identifier: Apache-2.0
"""Which rules guard the agent's port and ssh: a pure function of the policy.

The order is the meaning: loopback and our own containers, then the allowed networks (Cloudflare's by default, see
`networks`), then the drops. The policy stays accept and nothing matches connections, so no rule here can break what
the machine itself starts.
"""

from __future__ import annotations

from cc_sammy.firewall.model.nft_table import (
    ACCEPT,
    DROP,
    AddressSet,
    Chain,
    NftRule,
    Table,
    address_in,
    from_interface,
    not_from_interface,
    redirected,
    render,
    to_port,
)
from cc_sammy.firewall.model.policy import SSH_PORT, Policy

TABLE = "sammy"


def build(policy: Policy) -> Table:
    """Return the table that enforces the policy."""
    allow4 = AddressSet("allow4", 4, policy.allow4)
    allow6 = AddressSet("allow6", 6, policy.allow6)
    ssh4 = AddressSet("ssh4", 4, policy.ssh4)
    ssh6 = AddressSet("ssh6", 6, policy.ssh6)
    port = policy.agent_port
    agent = to_port("tcp", port)
    rules = [NftRule("loopback may do anything", (from_interface("lo"), ACCEPT)), *_containers(policy)]
    if policy.allow_any:
        rules.append(NftRule(f"anyone may reach agent port {port}", (agent, ACCEPT)))
    else:
        for group in (allow4, allow6):
            name = f"allowed IPv{group.version} networks may reach agent port {port}"
            rules.append(NftRule(name, (agent, address_in(group, "saddr"), ACCEPT)))
    rules.append(NftRule(f"nobody else may reach agent port {port} by tcp", (agent, DROP)))
    rules.append(NftRule(f"nobody else may reach agent port {port} by udp", (to_port("udp", port), DROP)))
    rules += _ssh(policy, ssh4, ssh6)
    chains = [Chain("input", "input", tuple(rules))]
    if policy.guard_published and not policy.allow_any:
        chains.append(Chain("forward", "forward", _published(policy, allow4, allow6)))
    return Table(TABLE, (allow4, allow6, ssh4, ssh6), tuple(chains))


def bridge_uplinks(policy: Policy) -> tuple[str, ...]:
    """Return the uplinks that look like Docker's bridges and are not."""
    return tuple(name for name in policy.uplinks if name.startswith("br-"))


def _published(policy: Policy, allow4: AddressSet, allow6: AddressSet) -> tuple[NftRule, ...]:
    """Close published container ports, which never pass the input chain: Docker turns their packets to the container.

    That turning is conntrack's own, so these rules may ask for it; without it no packet reaches a container at all.
    """
    rules = []
    if "docker0" not in policy.uplinks:
        rules.append(NftRule("containers on docker0 may reach published ports", (from_interface("docker0"), ACCEPT)))
    others = tuple(not_from_interface(name) for name in bridge_uplinks(policy))
    rules.append(NftRule("containers on br-* may reach published ports", (from_interface("br-*"), *others, ACCEPT)))
    for group in (allow4, allow6):
        name = f"allowed IPv{group.version} networks may reach published ports"
        rules.append(NftRule(name, (address_in(group, "saddr"), ACCEPT)))
    rules.append(NftRule("nobody else may reach published ports", (redirected(), DROP)))
    return tuple(rules)


def _containers(policy: Policy) -> list[NftRule]:
    """Accept the agent's port from Docker's bridges: docker0 and br-* unless it is the way to the world."""
    agent = to_port("tcp", policy.agent_port)
    rules = []
    if "docker0" not in policy.uplinks:
        name = f"containers on docker0 may reach agent port {policy.agent_port}"
        rules.append(NftRule(name, (from_interface("docker0"), agent, ACCEPT)))
    others = tuple(not_from_interface(name) for name in bridge_uplinks(policy))
    name = f"containers on br-* may reach agent port {policy.agent_port}"
    rules.append(NftRule(name, (from_interface("br-*"), *others, agent, ACCEPT)))
    return rules


def _ssh(policy: Policy, ssh4: AddressSet, ssh6: AddressSet) -> list[NftRule]:
    if policy.ssh == "open":
        return []
    port = to_port("tcp", SSH_PORT)
    rules = []
    if policy.ssh == "networks":
        for group in (ssh4, ssh6):
            name = f"allowed IPv{group.version} networks may reach ssh"
            rules.append(NftRule(name, (port, address_in(group, "saddr"), ACCEPT)))
    return [*rules, NftRule("nobody else may reach ssh", (port, DROP))]


def text(policy: Policy) -> str:
    """Return the nft text of the policy, for one `nft -f`."""
    return render(build(policy))
