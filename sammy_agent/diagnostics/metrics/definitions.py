# SPDX-License-Identifier: Apache-2.0
"""The metrics of a sample: one table of names, units and meanings. A metric that is not available is None.

Each is a column of the store; docs/events.md lists the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Metric(NamedTuple):
    """One metric's definition."""

    name: str
    unit: str
    meaning: str


# Interfaces are summed up by class: which of many veth pairs it was means little later, and they come and go.
CLASSES = {
    "uplink": "interfaces to the world",
    "bridge": "docker0 and other bridges",
    "container": "the host's ends of containers (veth)",
    "other": "loopback and tunnels",
}
DISKS = {"root": "/", "docker": "/var/lib/docker where it is a file system of its own"}
PRESSURES = ("cpu", "memory", "io")


def _metrics() -> Iterator[Metric]:
    yield Metric("interval_s", "s", "since the sample before, for what is counted in between; None for the first")
    yield Metric("cpu_user", "%", "of all CPUs: programs, nice ones included")
    yield Metric("cpu_system", "%", "of all CPUs: kernel and interrupts")
    yield Metric("cpu_iowait", "%", "of all CPUs: idle, waiting for a disk")
    yield Metric("cpu_steal", "%", "of all CPUs: taken by the host for other machines")
    for minutes in (1, 5, 15):
        yield Metric(f"load{minutes}", "", f"load average of {minutes} min")
    for name, words in (("total", "memory"), ("available", "what programs may still take without swapping")):
        yield Metric(f"memory_{name}", "B", words)
    for name in ("total", "used"):
        yield Metric(f"swap_{name}", "B", f"swap, {name}")
    for disk, where in DISKS.items():
        for name, unit, words in (("size", "B", "size"), ("used", "B", "in use"), ("free", "B", "free for all users"),
                                  ("inodes", "", "inodes"), ("inodes_used", "", "inodes in use")):  # fmt: skip
            yield Metric(f"{disk}_{name}", unit, f"{where}: {words}")
    for kind, words in CLASSES.items():
        for name, unit in (("rx", "B"), ("tx", "B"), ("errors", ""), ("drops", "")):
            yield Metric(f"{kind}_{name}", unit, f"{words}: {name} in the interval")
    for what in PRESSURES:
        for share, words in (("some", "some task waited"), ("full", "all tasks waited")):
            for span in (10, 60):
                yield Metric(f"{what}_{share}_avg{span}", "%", f"pressure: {words} for {what}, mean of {span} s")
            yield Metric(f"{what}_{share}_total", "us", f"pressure: {words} for {what}, since boot")
    yield Metric("agent_rss", "B", "the agent's resident memory")
    yield Metric("agent_cpu", "%", "the agent's share of one CPU in the interval")
    yield Metric("agent_threads", "", "the agent's threads")


METRICS = tuple(_metrics())
NAMES = tuple(metric.name for metric in METRICS)
