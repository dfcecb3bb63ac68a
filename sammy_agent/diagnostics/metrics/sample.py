# SPDX-License-Identifier: Apache-2.0
"""The difference of two snapshots as one sample: gauges as they are now, counters as their growth. No I/O."""

from __future__ import annotations

from sammy_agent.diagnostics.metrics.definitions import CLASSES
from sammy_agent.diagnostics.metrics.snapshot import Snapshot

SHARES = ("user", "system", "iowait", "steal")
COUNTED = ("rx", "tx", "errors", "drops")


def diff_snapshots(before: Snapshot | None, now: Snapshot) -> dict[str, float]:
    """Return the metrics that are known; without a previous snapshot, gauges only."""
    sample = dict(now.gauges)
    if before is None or now.at <= before.at:
        return sample
    interval = now.at - before.at
    sample["interval_s"] = round(interval, 3)
    whole = now.cpu.get("all", 0.0) - before.cpu.get("all", 0.0)
    if before.cpu and whole > 0:
        for name in SHARES:
            # the kernel's iowait may fall back by a little
            sample[f"cpu_{name}"] = round(100 * max(0.0, now.cpu[name] - before.cpu[name]) / whole, 2)
    if now.agent_cpu is not None and before.agent_cpu is not None:
        sample["agent_cpu"] = round(100 * (now.agent_cpu - before.agent_cpu) / interval, 3)
    return sample | _traffic(before, now)


def _traffic(before: Snapshot, now: Snapshot) -> dict[str, float]:
    """Sum up by class, interface by interface: a new one brings all it counted, one that is gone takes nothing away."""
    if not now.interfaces:
        return {}
    sums: dict[str, float] = {f"{kind}_{name}": 0 for kind in CLASSES for name in COUNTED}
    for interface, counters in now.interfaces.items():
        kind, old = class_of(interface), before.interfaces.get(interface, (0, 0, 0, 0))
        if counters[0] < old[0] or counters[1] < old[1]:
            old = (0, 0, 0, 0)  # another one of the same name
        for name, value, then in zip(COUNTED, counters, old, strict=True):
            sums[f"{kind}_{name}"] += max(0, value - then)
    return sums


def class_of(interface: str) -> str:
    """Return the class that an interface's name puts it in."""
    if interface.startswith(("docker", "br-", "virbr", "lxcbr", "cni")):
        return "bridge"
    if interface.startswith("veth"):
        return "container"
    if interface == "lo" or interface.startswith(("tun", "tap", "wg", "tailscale", "dummy", "ifb", "sit", "ip6tnl")):
        return "other"
    return "uplink"
