# SPDX-License-Identifier: Apache-2.0
"""Samples as a table: each metric's current value, mean and maximum, and its history as a line of bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BARS = "▁▂▃▄▅▆▇█"
Sample = dict[str, Any]


class TableRow(NamedTuple):
    """One row: its name, the value of a sample (None: not known), how it is shown, and what a full bar is."""

    name: str
    value: Callable[[Sample], float | None]
    shown: Callable[[float], str]
    full: float | None = None  # None: the highest value


def percent(value: float) -> str:
    """Format a share."""
    return f"{value:.1f} %"


def size(value: float) -> str:
    """Format bytes in the unit that reads best."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _plain(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{size(value)}/s"


def _sum(*names: str) -> Callable[[Sample], float | None]:
    def value(sample: Sample) -> float | None:
        known = [sample[name] for name in names if sample[name] is not None]
        return sum(known) if known else None

    return value


def _share(part: str, whole: str, *, of_rest: bool = False) -> Callable[[Sample], float | None]:
    def value(sample: Sample) -> float | None:
        some: float | None = sample[part]
        all: float | None = sample[whole]
        if some is None or not all:
            return None
        return 100 * (all - some if of_rest else some) / all

    return value


def _disk(name: str) -> Callable[[Sample], float | None]:
    """Return the share in use as df shows it: what is reserved for root counts as used."""

    def value(sample: Sample) -> float | None:
        used: float | None = sample[f"{name}_used"]
        free: float | None = sample[f"{name}_free"]
        return None if used is None or free is None or not used + free else 100 * used / (used + free)

    return value


def _per_second(*names: str) -> Callable[[Sample], float | None]:
    def value(sample: Sample) -> float | None:
        total, interval = _sum(*names)(sample), sample["interval_s"]
        return None if total is None or not interval else total / interval

    return value


ROWS = (
    TableRow("CPU", _sum("cpu_user", "cpu_system"), percent, 100),
    TableRow("CPU waiting for disks", _sum("cpu_iowait"), percent, 100),
    TableRow("CPU stolen by the host", _sum("cpu_steal"), percent, 100),
    TableRow("load, 1 min", _sum("load1"), _plain),
    TableRow("memory in use", _share("memory_available", "memory_total", of_rest=True), percent, 100),
    TableRow("swap in use", _share("swap_used", "swap_total"), percent, 100),
    TableRow("disk /", _disk("root"), percent, 100),
    TableRow("inodes of /", _share("root_inodes_used", "root_inodes"), percent, 100),
    TableRow("disk /var/lib/docker", _disk("docker"), percent, 100),
    TableRow("network in", _per_second("uplink_rx"), _rate),
    TableRow("network out", _per_second("uplink_tx"), _rate),
    TableRow("  errors and drops", _sum("uplink_errors", "uplink_drops"), _count),
    TableRow("containers out", _per_second("container_rx"), _rate),
    TableRow("containers in", _per_second("container_tx"), _rate),
    TableRow("waiting for CPU", _sum("cpu_some_avg60"), percent, 100),
    TableRow("waiting for memory", _sum("memory_some_avg60"), percent, 100),
    TableRow("waiting for disks", _sum("io_some_avg60"), percent, 100),
    TableRow("agent's memory", _sum("agent_rss"), size),
    TableRow("agent's CPU", _sum("agent_cpu"), percent, 100),
)


class Series:
    """A row's values over time: each falls into one of `width` intervals between two times."""

    def __init__(self, row: TableRow, begin: float, end: float, width: int) -> None:
        self.row = row
        self._begin, self._span = begin, max(1.0, end - begin) / width
        self._highest: list[float | None] = [None] * width
        self._sum, self._count = 0.0, 0
        self.now: float | None = None
        self.highest: float | None = None

    def add(self, at: float, sample: Sample) -> None:
        """Take a sample."""
        value = self.now = self.row.value(sample)
        if value is None:
            return
        self._sum, self._count = self._sum + value, self._count + 1
        self.highest = value if self.highest is None else max(value, self.highest)
        span = min(len(self._highest) - 1, max(0, int((at - self._begin) / self._span)))
        before = self._highest[span]
        self._highest[span] = value if before is None else max(before, value)

    def cells(self) -> tuple[str, ...] | None:
        """Return name, current value, mean and maximum; None where nothing is known."""
        if not self._count or self.highest is None:
            return None
        values = (self.now, self._sum / self._count, self.highest)
        return (self.row.name, *("-" if value is None else self.row.shown(value) for value in values))

    def bars(self) -> str:
        """Return the bars, a blank where nothing is known."""
        full = self.row.full or self.highest or 1.0
        steps = len(BARS) - 1
        return "".join(
            " " if value is None else BARS[min(steps, max(0, round(steps * value / full)))] for value in self._highest
        )


def table(all_series: Sequence[Series], *, bars: bool) -> list[tuple[str, ...]]:
    """Return the table's rows, its heading first; metrics that this machine does not have are left out."""
    rows = [("METRIC", "NOW", "MEAN", "MAX", *(("HISTORY",) if bars else ()))]
    for series in all_series:
        cells = series.cells()
        if cells is not None:
            rows.append((*cells, *((series.bars(),) if bars else ())))
    return rows
