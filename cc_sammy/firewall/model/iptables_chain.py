# SPDX-License-Identifier: Apache-2.0
"""The rules as chain SAMMY of iptables, in the peer's final order, and the comparison with `iptables -S`.

Rules are written in the very form that `iptables -S` prints, so that reading back is comparing lines.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cc_sammy.firewall.model import rule_order
from cc_sammy.firewall.model.networks import Network4, Network6
from cc_sammy.firewall.model.policy import SSH_PORT, Policy
from cc_sammy.firewall.model.port_rules import bridge_uplinks

CHAIN = "SAMMY"
JUMP = f"-A INPUT -j {CHAIN}"
COUNTERS = r" -c (\d+) (\d+)"


class ChainRule(NamedTuple):
    """A rule as `iptables -S` prints it, and its meaning in plain words."""

    text: str
    name: str


class ChainDump(NamedTuple):
    """What the kernel holds of one family's filter table, as far as it concerns us."""

    policy: str
    input: tuple[str, ...]
    rules: tuple[str, ...]
    exists: bool
    dropped: tuple[tuple[str, int, int], ...] = ()

    @property
    def jumps(self) -> int:
        """How often INPUT jumps to our chain."""
        return self.input.count(JUMP)

    @property
    def jump_is_first(self) -> bool:
        """Whether the one jump stands first."""
        return self.jumps == 1 and self.input[0] == JUMP


def program(used: str, version: int, end: str = "") -> str:
    """Return the command of a variant and family; `end` is `-restore` for that one."""
    return f"ip{'6' if version == 6 else ''}tables-{used}{end}"


def lines(policy: Policy, version: int) -> tuple[ChainRule, ...]:
    """Return the chain's rules of one family (4 or 6).

    A bridge that carries the default route is the network's: the journal's `br-+` would let the world in, so it is
    closed before that rule, behind the allowed networks. Without such a bridge the order is the journal's.
    """
    port, any_to = policy.agent_port, "nobody else may reach"
    agent = f"-p tcp -m tcp --dport {port}"
    loopback = _rule("-i lo", "ACCEPT", "loopback may do anything")
    docker0 = _rule(f"-i docker0 {agent}", "ACCEPT", f"containers on docker0 may reach agent port {port}")
    bridges = _rule(f"-i br-+ {agent}", "ACCEPT", f"containers on br-* may reach agent port {port}")
    allowed = list(_allowed(policy, version, agent))
    closed = [_rule(f"-i {name} {agent}", "DROP", f"{name} is an uplink") for name in bridge_uplinks(policy)]
    own = [loopback] if "docker0" in policy.uplinks else [loopback, docker0]
    middle = [*allowed, *closed, bridges] if closed else [bridges, *allowed]
    drops = [
        _rule(agent, "DROP", f"{any_to} agent port {port} by tcp"),
        _rule(f"-p udp -m udp --dport {port}", "DROP", f"{any_to} agent port {port} by udp"),
    ]
    return (*own, *middle, *drops, *_ssh(policy, version))


def _rule(match: str, verdict: str, name: str) -> ChainRule:
    return ChainRule(f"-A {CHAIN} {match} -j {verdict}", name)


def _allowed(policy: Policy, version: int, agent: str) -> tuple[ChainRule, ...]:
    if policy.allow_any:
        return (_rule(agent, "ACCEPT", f"anyone may reach agent port {policy.agent_port}"),)
    networks: tuple[Network4 | Network6, ...] = policy.allow4 if version == 4 else policy.allow6
    # the peer inserts each at place 1, so its last stands first
    return tuple(_from(network, agent, f"agent port {policy.agent_port}") for network in reversed(networks))


def _from(network: Network4 | Network6, match: str, what: str) -> ChainRule:
    source = f"-s {network} " if network.prefixlen else ""  # iptables prints no match for "all"
    return _rule(f"{source}{match}", "ACCEPT", f"{network} may reach {what}")


def _ssh(policy: Policy, version: int) -> tuple[ChainRule, ...]:
    if policy.ssh == "open":
        return ()
    match = f"-p tcp -m tcp --dport {SSH_PORT}"
    networks: tuple[Network4 | Network6, ...]
    networks = (policy.ssh4 if version == 4 else policy.ssh6) if policy.ssh == "networks" else ()
    accepts = tuple(_from(network, match, "ssh") for network in networks)
    return (*accepts, _rule(match, "DROP", "nobody else may reach ssh"))


def text(policy: Policy, version: int, extra: tuple[str, ...] = ()) -> str:
    """Return the input of one `iptables-restore --noflush`: our chain refilled, all else left as it is.

    :param extra: lines that mend the jump, in the same transaction.
    """
    rules = [line.text for line in lines(policy, version)]
    return "\n".join(["*filter", f":{CHAIN} - [0:0]", *rules, *extra, "COMMIT"]) + "\n"


def jump_lines(dump: ChainDump) -> tuple[str, ...]:
    """Return what makes our jump the first of INPUT, and the only one; nothing when it is."""
    if dump.jump_is_first:
        return ()
    return (*[f"-D INPUT -j {CHAIN}"] * dump.jumps, f"-I INPUT 1 -j {CHAIN}")


def removal(dump: ChainDump) -> str:
    """Return the input that takes the jump and the chain away."""
    gone = [f"-D INPUT -j {CHAIN}"] * dump.jumps
    return "\n".join(["*filter", f":{CHAIN} - [0:0]", *gone, f"-X {CHAIN}", "COMMIT"]) + "\n"


def parse(printed: str) -> ChainDump:
    """Return what `iptables -v -S` printed."""
    policy, input_, rules, dropped, exists = "ACCEPT", [], [], [], False
    for raw in printed.splitlines():
        line = re.sub(COUNTERS, "", raw)
        if line.startswith("-P INPUT "):
            policy = line.split()[2]
        elif line == f"-N {CHAIN}":
            exists = True
        elif line.startswith("-A INPUT "):
            input_.append(line)
        elif line.startswith(f"-A {CHAIN} "):
            rules.append(line)
            counted = re.search(COUNTERS, raw)
            if line.endswith("-j DROP") and counted:
                dropped.append((line, int(counted[1]), int(counted[2])))
    return ChainDump(policy, tuple(input_), tuple(rules), exists, tuple(dropped))


def differences(policy: Policy, version: int, dump: ChainDump) -> list[str]:
    """Return each difference between the policy and what the kernel holds of one family."""
    where = f"IPv{version} chain {CHAIN}"
    if not dump.exists:
        return [f"{where} is missing: nothing it should guard is guarded"]
    problems = []
    if dump.jumps == 0:
        problems.append(f"IPv{version} INPUT does not jump to {CHAIN}: nothing it should guard is guarded")
    elif dump.jumps > 1:
        problems.append(f"IPv{version} INPUT jumps to {CHAIN} {dump.jumps} times")
    elif not dump.jump_is_first:
        place = dump.input.index(JUMP) + 1
        problems.append(f"IPv{version} INPUT jumps to {CHAIN} at place {place}, so {place - 1} rules come before it")
    names = {line.text: line.name for line in lines(policy, version)}
    return problems + rule_order.order_differences(where, names, [(rule, rule) for rule in dump.rules])
