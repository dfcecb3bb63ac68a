# SPDX-License-Identifier: Apache-2.0
"""From configuration and what the machine is like, to the policy that is to be in force now."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from cc_sammy.common import files
from cc_sammy.contract.firewall_config import FirewallConfig
from cc_sammy.errors import SammyError
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model.networks import Network4, Network6

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


READY = "/var/lib/sammy/ready-acknowledged"
PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
ROUTES4 = "/proc/thread-self/net/route"
ROUTES6 = "/proc/thread-self/net/ipv6_route"
ROUTE_UP, ROUTE_REJECT = 0x1, 0x200


def from_config(config: FirewallConfig, agent_port: int) -> Policy:
    """Return the policy for this machine at this moment.

    `ssh: drop` closes ssh only once the control plane has acknowledged the node: a failed boot keeps its way in.

    :raises SammyError: an option cannot be enforced; names the key and the value.
    """
    guard_published = config.published_ports == "allowed-only"
    if guard_published and config.backend != "nftables":
        raise SammyError(
            "firewall.published_ports: allowed-only needs firewall.backend nftables", "Change one of the two"
        )
    _refuse_local_port(agent_port)
    any_source = config.allow == "any"
    allow = () if any_source else _texts(config.allow)
    allow4, allow6 = networks.parse(allow, "firewall.allow", networks.current())
    ssh = "open" if config.ssh == "ranges" and any_source else _ssh_mode(config)
    if config.ssh == "ranges":
        ssh4, ssh6 = allow4, allow6
    else:
        ssh4, ssh6 = networks.parse(_texts(config.ssh) if ssh == "networks" else (), "firewall.ssh")
    return Policy(
        agent_port=agent_port,
        allow4=allow4,
        allow6=allow6,
        allow_any=any_source,
        ssh=ssh,
        ssh4=ssh4,
        ssh6=ssh6,
        uplinks=uplinks(),
        backend=config.backend,
        guard_published=guard_published,
    ).checked()


def uplinks() -> tuple[str, ...]:
    """Return the interfaces that carry a default route of either family."""
    found = set()
    for line in (files.read_text(ROUTES4) or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[1] == fields[7] == "00000000" and int(fields[3], 16) & ROUTE_UP:
            found.add(fields[0])
    for line in (files.read_text(ROUTES6) or "").splitlines():
        fields = line.split()
        # the kernel's own "unreachable default" stands on lo with RTF_REJECT
        if len(fields) >= 10 and fields[0] == "0" * 32 and fields[1] == "00":
            flags = int(fields[8], 16)
            if flags & ROUTE_UP and not flags & ROUTE_REJECT:
                found.add(fields[9])
    return tuple(sorted(found - {"lo"}))


def _ssh_mode(config: FirewallConfig) -> str:
    if config.ssh == "drop-always" or (config.ssh == "drop" and os.path.exists(READY)):
        return "drop"
    return "open" if config.ssh in ("drop", "open") else "networks"


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _refuse_local_port(port: int) -> None:
    """Refuse a port the kernel may give to our own connections: their replies would be dropped (36 of 60 were)."""
    fields = (files.read_text(PORT_RANGE) or "").split()
    if len(fields) != 2:
        return
    low, high = int(fields[0]), int(fields[1])
    if low <= port <= high:
        raise SammyError(
            f"agent.port {port} lies in the local port range {low}-{high}: the firewall would drop the replies to "
            "the machine's own connections",
            f"Choose a port below {low}, such as 8443, or move the range in {PORT_RANGE}",
        )
