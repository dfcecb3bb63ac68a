# SPDX-License-Identifier: Apache-2.0
"""`sammy analyze blame|critical-chain|plot`: why a run took as long as it did, and what would shorten the next."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from cc_sammy.cli import boot_stages, critical_path, timeline_svg
from cc_sammy.cli.timings import add_run, chosen
from cc_sammy.common import files
from cc_sammy.common.text_table import table
from cc_sammy.contract import paths
from cc_sammy.contract.run_record import RunRecord, Status, StepRecord
from cc_sammy.host.host import Host


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
    found = critical_path.spans(record) if record else []
    if record is None or not found:
        print(f"sammy: no such run, or no step of it began. The stored ones are in {paths.RUNS}", file=sys.stderr)
        return 3
    if arguments.analysis == "plot":
        bars = [*_stages(record), *_bars(record, found)]
        picture = timeline_svg.svg(_title(record), _subtitle(record, found), bars)
        if arguments.output:
            files.write_text(arguments.output, picture)
        else:
            print(picture, end="")
    elif arguments.json:
        print(json.dumps(_documents(arguments.analysis, found), indent=1))
    else:
        print("\n".join(_blame(found) if arguments.analysis == "blame" else _chain(found)))
    return 0


def _documents(kind: str, found: list[critical_path.Span]) -> list[dict[str, Any]]:
    if kind == "blame":
        return [
            {**asdict(cost.span), "slack": cost.slack, "gain": cost.saving} for cost in critical_path.step_costs(found)
        ]
    return [asdict(span) for span in critical_path.critical_chain(found)]


def _blame(found: list[critical_path.Span]) -> list[str]:
    rows = [("STEP", "DURATION_MS", "SLACK_MS", "GAIN_MS", "CPU_MS", "PEAK_MB", "READ_MB", "WRITTEN_MB")]
    rows += [
        (
            cost.span.name,
            f"{cost.span.duration:.0f}",
            f"{cost.slack:.0f}",
            f"{cost.saving:.0f}",
            _shown(cost.span.cpu_ms, 1, 0),
            _shown(cost.span.peak_kb, 1e3 / 1.024, 0),
            _shown(cost.span.read_bytes, 1e6, 1),
            _shown(cost.span.written_bytes, 1e6, 1),
        )
        for cost in critical_path.step_costs(found)
    ]
    return table(rows, right=range(1, len(rows[0])))


def _shown(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _chain(found: list[critical_path.Span]) -> list[str]:
    """Return the chain as systemd-analyze draws it: the last step on top, what it waited for below."""
    lines = []
    for depth, span in enumerate(reversed(critical_path.critical_chain(found))):
        mark = "  " * (depth - 1) + "└─" if depth else ""
        lines.append(f"{mark}{span.name} @{span.begin / 1000:.3f}s +{span.duration / 1000:.3f}s")
    gains = sorted(critical_path.step_costs(found), key=lambda cost: cost.saving, reverse=True)
    if gains and gains[0].saving > 0:
        lines += [
            "",
            f"Most to gain: {gains[0].span.name}; without it the run is {gains[0].saving / 1000:.1f} s shorter.",
        ]
    return lines


def _title(record: RunRecord) -> str:
    took = "" if record.duration_ms is None else f" after {timeline_svg.shown(record.duration_ms / 1000)}"
    return f"Boot steps: {record.outcome.value}{took}"


def _subtitle(record: RunRecord, found: list[critical_path.Span]) -> str:
    parts = [f"run {record.run_id}", f"{len(found)} steps"]
    most = max(critical_path.step_costs(found), key=lambda cost: cost.saving)
    if most.saving > 0:
        parts.append(f"without {most.span.name} it would be {timeline_svg.shown(most.saving / 1000)} shorter")
    return "  ·  ".join(parts)


def _bars(record: RunRecord, found: list[critical_path.Span]) -> list[timeline_svg.Bar]:
    chain = {span.name for span in critical_path.critical_chain(found)}
    slack = {cost.span.name: max(0.0, cost.slack) / 1000 for cost in critical_path.step_costs(found)}
    return [
        timeline_svg.Bar(
            span.name,
            record.started + span.begin / 1000,
            record.started + span.end / 1000,
            span.status if span.status in ("failed", "skipped") else (*span.uses, "own")[0],
            _note(record.step(span.name)),
            span.name in chain,
            slack[span.name],
        )
        for span in found
    ]


def _note(step: StepRecord) -> str:
    """Say what the bar's colour and length do not."""
    words = [step.status.value] if step.status is not Status.COMPLETED else []
    if step.attempt > 1:
        words.append(f"{step.attempt} attempts")
    return ", ".join(words)


def _stages(record: RunRecord) -> list[timeline_svg.Bar]:
    return [
        timeline_svg.Bar(stage.name, stage.begin, stage.end, "stage")
        for stage in boot_stages.of_boot(Host(), record.boot_id)
    ]
