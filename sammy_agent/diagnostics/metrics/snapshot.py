# SPDX-License-Identifier: Apache-2.0
"""The machine's counters and gauges at one moment, read from /proc; no program is run for it.

What this kernel does not have (PSI, swap) or denies is left out, never an error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from sammy_agent.base.runtime import procfs
from sammy_agent.diagnostics.metrics.definitions import PRESSURES

DOCKER = "/var/lib/docker"
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass
class Snapshot:
    """Counters since boot, and gauges. Bytes, and seconds of CPU."""

    at: float  # CLOCK_BOOTTIME, seconds
    gauges: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)  # user, system, iowait, steal, all
    interfaces: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # rx, tx, errors, drops
    agent_cpu: float | None = None


def read(at: float, proc: str = "/proc", root: str = "") -> Snapshot:
    """Read everything; takes about a fifth of a millisecond.

    :param at: the present time of CLOCK_BOOTTIME, seconds.
    :param proc: where procfs is mounted.
    :param root: put before the paths of file systems.
    """
    found = Snapshot(at)
    for fill in (_cpu, _load, _memory, _interfaces, _pressure, _agent):
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            fill(found, proc)
    _disks(found, root)
    return found


def _cpu(found: Snapshot, proc: str) -> None:
    line = procfs.read_text(f"{proc}/stat", 512).split("\n", 1)[0].split()
    user, nice, system, idle, iowait, irq, softirq, steal = (int(value) / _TICKS for value in line[1:9])
    found.cpu = {
        "user": user + nice,  # guests' time is in it already
        "system": system + irq + softirq,
        "iowait": iowait,
        "steal": steal,
        "all": user + nice + system + idle + iowait + irq + softirq + steal,
    }


def _load(found: Snapshot, proc: str) -> None:
    for minutes, value in zip((1, 5, 15), procfs.read_text(f"{proc}/loadavg").split(), strict=False):
        found.gauges[f"load{minutes}"] = float(value)


def _memory(found: Snapshot, proc: str) -> None:
    main, swap = procfs.memory(proc)
    found.gauges["memory_total"], found.gauges["memory_available"] = main.total, main.available
    if swap is not None:
        found.gauges["swap_total"], found.gauges["swap_used"] = swap.total, swap.used


def _interfaces(found: Snapshot, proc: str) -> None:
    for name, values in _interface_lines(procfs.read_text(f"{proc}/self/net/dev", procfs.MAX_BYTES)):
        found.interfaces[name] = (values[0], values[8], values[2] + values[10], values[3] + values[11])


def _interface_lines(text: str) -> Iterator[tuple[str, list[int]]]:
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")  # an alias holds a colon
        values = [int(value) for value in rest.split()]
        if len(values) >= 12:
            yield name.strip(), values


def _pressure(found: Snapshot, proc: str) -> None:
    for what in PRESSURES:
        with contextlib.suppress(
            OSError, ValueError, KeyError
        ):  # older kernels have no line `full` for the CPU, or no PSI at all
            for line in procfs.read_text(f"{proc}/pressure/{what}").splitlines():
                share, *pairs = line.split()
                values = dict(pair.split("=") for pair in pairs)
                for name in ("avg10", "avg60", "total"):
                    found.gauges[f"{what}_{share}_{name}"] = float(values[name])


def _agent(found: Snapshot, proc: str) -> None:
    values = procfs.read_text(f"{proc}/self/stat").rpartition(")")[2].split()  # a program's name may hold anything
    found.agent_cpu = (int(values[11]) + int(values[12])) / _TICKS
    found.gauges["agent_threads"] = int(values[17])
    found.gauges["agent_rss"] = int(values[21]) * _PAGE


def _disks(found: Snapshot, root: str) -> None:
    with contextlib.suppress(OSError):
        top = os.stat(root or "/").st_dev
        _disk(found, "root", root or "/")
        if os.stat(root + DOCKER).st_dev != top:
            _disk(found, "docker", root + DOCKER)


def _disk(found: Snapshot, name: str, path: str) -> None:
    space, inodes = procfs.file_system(path)
    found.gauges[f"{name}_size"], found.gauges[f"{name}_used"] = space.total, space.used
    found.gauges[f"{name}_free"] = space.available
    if inodes is not None:
        found.gauges[f"{name}_inodes"], found.gauges[f"{name}_inodes_used"] = inodes.total, inodes.used
