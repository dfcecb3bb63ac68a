# SPDX-License-Identifier: Apache-2.0
"""The figures of a sample: one table of names, units and meanings. A figure that cannot be had is None.

A column of the store is a figure; docs/events.md lists the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Figure(NamedTuple):
    """One figure."""

    name: str
    unit: str
    meaning: str


# Interfaces are summed up by class: which of many veth pairs it was says little later, and they come and go.
CLASSES = {
    "uplink": "interfaces to the world",
    "bridge": "docker0 and other bridges",
    "container": "the host's ends of containers (veth)",
    "other": "loopback and tunnels",
}
DISKS = {"root": "/", "docker": "/var/lib/docker where it is a file system of its own"}
PRESSURES = ("cpu", "memory", "io")


def _figures() -> Iterator[Figure]:
    yield Figure("interval_s", "s", "since the sample before, for what is counted in between; None for the first")
    yield Figure("cpu_user", "%", "of all CPUs: programs, nice ones included")
    yield Figure("cpu_system", "%", "of all CPUs: kernel and interrupts")
    yield Figure("cpu_iowait", "%", "of all CPUs: idle, waiting for a disk")
    yield Figure("cpu_steal", "%", "of all CPUs: taken by the host for other machines")
    for minutes in (1, 5, 15):
        yield Figure(f"load{minutes}", "", f"load average of {minutes} min")
    for name, words in (("total", "memory"), ("available", "what programs may still take without swapping")):
        yield Figure(f"memory_{name}", "B", words)
    for name in ("total", "used"):
        yield Figure(f"swap_{name}", "B", f"swap, {name}")
    for disk, where in DISKS.items():
        for name, unit, words in (("size", "B", "size"), ("used", "B", "in use"), ("free", "B", "free for all users"),
                                  ("inodes", "", "inodes"), ("inodes_used", "", "inodes in use")):  # fmt: skip
            yield Figure(f"{disk}_{name}", unit, f"{where}: {words}")
    for kind, words in CLASSES.items():
        for name, unit in (("rx", "B"), ("tx", "B"), ("errors", ""), ("drops", "")):
            yield Figure(f"{kind}_{name}", unit, f"{words}: {name} in the interval")
    for what in PRESSURES:
        for share, words in (("some", "some task waited"), ("full", "all tasks waited")):
            for span in (10, 60):
                yield Figure(f"{what}_{share}_avg{span}", "%", f"pressure: {words} for {what}, mean of {span} s")
            yield Figure(f"{what}_{share}_total", "us", f"pressure: {words} for {what}, since boot")
    yield Figure("agent_rss", "B", "the agent's resident memory")
    yield Figure("agent_cpu", "%", "the agent's share of one CPU in the interval")
    yield Figure("agent_threads", "", "the agent's threads")


FIGURES = tuple(_figures())
NAMES = tuple(figure.name for figure in FIGURES)
