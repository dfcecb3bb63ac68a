# SPDX-License-Identifier: Apache-2.0
"""`sammy analyze blame|critical-chain|plot`: why a run took as long as it did, and what would shorten the next."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from cc_sammy.cli import analysis, plot
from cc_sammy.cli.text import table
from cc_sammy.cli.timings import add_run, chosen
from cc_sammy.contract import paths
from cc_sammy.contract.state import RunRecord
from cc_sammy.host import Host

STAGES = ("cloud-init-local", "cloud-init", "cloud-init-main", "cloud-init-network", "cloud-config", "cloud-final")


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("analyze", help="where a run's time went, and what would shorten it")
    inner = parser.add_subparsers(dest="analysis", required=True, metavar="blame|critical-chain|plot")
    for name, words in (
        ("blame", "steps by their duration, with slack, what their absence would gain, and what their commands used"),
        ("critical-chain", "the chain of steps that made the run as long as it was"),
        ("plot", "a picture (SVG) of steps and boot stages"),
    ):
        one = inner.add_parser(name, help=words)
        add_run(one)
        if name == "plot":
            one.add_argument("--output", metavar="FILE", help="write it there (default: standard output)")
        else:
            one.add_argument("--json", action="store_true", help="print a list of objects")


def run(arguments: argparse.Namespace) -> int:
    """Print the analysis; exit 3 when there is no such run."""
    record = chosen(arguments.run)
    found = analysis.spans(record) if record else []
    if record is None or not found:
        print(f"sammy: no such run, or no step of it began. The stored ones are in {paths.RUNS}", file=sys.stderr)
        return 3
    if arguments.analysis == "plot":
        picture = plot.svg(_title(record), [*_stages(record), *_bars(record, found)])
        if arguments.output:
            Host().write_text(arguments.output, picture)
        else:
            print(picture, end="")
    elif arguments.json:
        print(json.dumps(_documents(arguments.analysis, found), indent=1))
    else:
        print("\n".join(_blame(found) if arguments.analysis == "blame" else _chain(found)))
    return 0


def _documents(kind: str, found: list[analysis.Span]) -> list[dict[str, Any]]:
    if kind == "blame":
        return [{**asdict(cost.span), "slack": cost.slack, "gain": cost.gain} for cost in analysis.costs(found)]
    return [asdict(span) for span in analysis.critical_chain(found)]


def _blame(found: list[analysis.Span]) -> list[str]:
    rows = [("STEP", "DURATION_MS", "SLACK_MS", "GAIN_MS", "CPU_MS", "PEAK_MB", "READ_MB", "WRITTEN_MB")]
    rows += [
        (
            cost.span.name,
            f"{cost.span.duration:.0f}",
            f"{cost.slack:.0f}",
            f"{cost.gain:.0f}",
            _shown(cost.span.cpu_ms, 1, 0),
            _shown(cost.span.peak_kb, 1e3 / 1.024, 0),
            _shown(cost.span.read_bytes, 1e6, 1),
            _shown(cost.span.written_bytes, 1e6, 1),
        )
        for cost in analysis.costs(found)
    ]
    return table(rows, right=range(1, len(rows[0])))


def _shown(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _chain(found: list[analysis.Span]) -> list[str]:
    """Return the chain as systemd-analyze draws it: the last step on top, what it waited for below."""
    lines = []
    for depth, span in enumerate(reversed(analysis.critical_chain(found))):
        mark = "  " * (depth - 1) + "└─" if depth else ""
        lines.append(f"{mark}{span.name} @{span.begin / 1000:.3f}s +{span.duration / 1000:.3f}s")
    gains = sorted(analysis.costs(found), key=lambda cost: cost.gain, reverse=True)
    if gains and gains[0].gain > 0:
        lines += [
            "",
            f"Most to gain: {gains[0].span.name}; without it the run is {gains[0].gain / 1000:.1f} s shorter.",
        ]
    return lines


def _title(record: RunRecord) -> str:
    took = "" if record.duration_ms is None else f", {record.duration_ms / 1000:.1f} s"
    return f"Boot steps of run {record.run_id}: {record.outcome.value}{took}"


def _bars(record: RunRecord, found: list[analysis.Span]) -> list[plot.Bar]:
    chain = {span.name for span in analysis.critical_chain(found)}
    return [
        plot.Bar(
            span.name,
            record.started + span.begin / 1000,
            record.started + span.end / 1000,
            span.status if span.status in ("failed", "skipped") else (*span.uses, "own")[0],
            span.status if span.status != "completed" else "",
            span.name in chain,
        )
        for span in found
    ]


def _stages(record: RunRecord) -> list[plot.Bar]:
    """Return kernel and cloud-init's stages, where the run is this boot's: systemd knows no other."""
    host = Host()
    if (host.read_text("/proc/sys/kernel/random/boot_id") or "").strip() != record.boot_id:
        return []
    properties = "--property=Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
    units = [f"{name}.service" for name in STAGES]
    answer = host.run(["systemctl", "show", properties, *units], check=False, timeout=10)
    bars = []
    for block in answer.stdout.split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        begin = int(found.get("InactiveExitTimestampMonotonic") or 0) / 1e6
        end = int(found.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        if begin:
            bars.append(plot.Bar(found["Id"].removesuffix(".service"), begin, max(end, begin) or begin, "stage"))
    bars.sort(key=lambda bar: bar.begin)
    return [plot.Bar("kernel, systemd", 0.0, bars[0].begin, "stage"), *bars] if bars else []
