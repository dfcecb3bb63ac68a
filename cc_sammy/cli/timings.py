# SPDX-License-Identifier: Apache-2.0
"""`sammy timings`: what each step cost, as in the journal entry this project comes from."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from cc_sammy.common import run_records
from cc_sammy.common.terminal import colorize
from cc_sammy.common.text_table import table
from cc_sammy.contract import paths, run_record
from cc_sammy.contract.journal_fields import USAGE_FIELDS
from cc_sammy.contract.run_record import Outcome


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("timings", help="what each step cost")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument(
        "--long", action="store_true", help="add when each step began and ended, attempts, reasons, sums"
    )
    add_run(parser)


def add_run(parser: Any) -> None:
    """Add the option that chooses a run."""
    parser.add_argument("--run", metavar="ID", help="a stored run, or 'first' or 'last'; default: this boot's")


def chosen(wanted: str | None) -> run_record.RunRecord | None:
    """Return the run that --run names, this boot's without it; None when there is none."""
    if wanted is None:
        return run_records.load()
    stored = run_records.stored_runs()
    if wanted in ("first", "last"):
        return run_records.load(stored[0 if wanted == "first" else -1]) if stored else None
    return run_records.load(f"{paths.RUNS}/{wanted.replace('/', '_')}.json")


def rows(record: run_record.RunRecord) -> list[dict[str, Any]]:
    """Return the table's rows, the last being `all`: the true wall clock, not the sum."""
    whole = "failed" if record.outcome is Outcome.FAILED else "completed"
    if record.duration_ms is None:  # it may be ready already, with images still to come
        whole = "running"
    listed: list[dict[str, Any]] = [
        {
            "step": step.name,
            "status": step.status.value,
            "duration_ms": step.duration_ms,
            **{key: getattr(step, key) for key in USAGE_FIELDS.values()},
            **({"results": step.results} if step.results else {}),
            **({} if step.first is None else {"attempts": step.attempt, **_first_and_last(step)}),
        }
        for step in record.steps
    ]
    return [*listed, {"step": "all", "status": whole, "duration_ms": record.duration_ms}]


def _first_and_last(step: run_record.StepRecord) -> dict[str, Any]:
    return {name: asdict(one) for name, one in (("first", step.first), ("last", step.last)) if one is not None}


def attempts(record: run_record.RunRecord) -> list[str]:
    """Return one line for the first and one for the last attempt at each step that was tried more than once."""
    lines = []
    for step in record.steps:
        for number, one in ((1, step.first), (step.attempt, step.last)):
            if one is not None:
                when = f"{one.started - record.started:.3f} s after the run's begin"
                why = f": {one.reason}" if one.reason else ""
                lines.append(f"{step.name}, attempt {number} of {step.attempt}, {when}, {one.duration_ms:.0f} ms{why}")
    return lines


def long_report(record: run_record.RunRecord) -> list[str]:
    """Return the run as a file of its own: each step's begin and end by the wall clock, the true sum, the true whole.

    The journal entry's file counted its row `all` among the steps, so that its sum was twice the truth, and had whole
    seconds only.
    """
    cells = [("STEP", "STATUS", "STARTED_AT", "ENDED_AT", "DURATION_MS", "ATTEMPTS", "REASON")]
    for step in record.steps:
        end = None if step.started is None or step.duration_ms is None else step.started + step.duration_ms / 1000
        duration = "-" if step.duration_ms is None else f"{step.duration_ms:.0f}"
        began = _clock(record, step.started)
        tries = str(step.attempt) if step.started is not None else "-"
        cells.append(
            (step.name, step.status.value, began, _clock(record, end), duration, tries, _one_line(step.reason))
        )
    spent = [step.duration_ms for step in record.steps if step.duration_ms is not None]
    bounds = [
        (step.started, step.started + (step.duration_ms or 0.0) / 1000)
        for step in record.steps
        if step.started is not None
    ]
    wall = (max(end for _, end in bounds) - min(begin for begin, _ in bounds)) * 1000 if bounds else 0.0
    title = f"sammy: provisioning timings, run {record.run_id}, outcome {record.outcome.value}"
    sums = [
        ("Sum of per-step durations:", _format_duration(sum(spent))),
        ("Wall-clock (first to last):", _format_duration(wall)),
    ]
    if record.duration_ms is not None:
        sums.append(("Whole run:", _format_duration(record.duration_ms)))
    lines = [title, "=" * len(title), "", *table(cells, right=(4, 5)), "", *table(sums)]
    lines += [f"Reason: {_one_line(record.reason)}"] if record.reason else []
    return [*lines, *([""] if (more := attempts(record)) else []), *more]


def _clock(record: run_record.RunRecord, boottime: float | None) -> str:
    """Return a time of CLOCK_BOOTTIME by the wall clock that the run began with, in milliseconds."""
    if boottime is None:
        return "-"
    try:
        began = datetime.fromisoformat(record.wall_clock)
    except ValueError:
        return f"{boottime:.3f}"
    return (began + timedelta(seconds=boottime - record.started)).isoformat(timespec="milliseconds")


def _format_duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms ({milliseconds / 1000:.1f} s)"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def run(arguments: argparse.Namespace) -> int:
    """Print the table; exit 3 when there is no such run."""
    record = chosen(arguments.run)
    if record is None:
        print(f"sammy: no such run. The stored ones are in {paths.RUNS}", file=sys.stderr)
        return 3
    if arguments.json:
        print(json.dumps(rows(record), indent=1))
        return 0
    if arguments.long:
        print("\n".join(long_report(record)))
        return 0
    cells = [("STEP", "STATUS", "DURATION_MS")]
    for row in rows(record):
        duration = "-" if row["duration_ms"] is None else f"{row['duration_ms']:.0f}"
        cells.append((row["step"], row["status"], duration))
    for cell, line in zip(cells, table(cells, right=(2,)), strict=True):
        print(colorize(line, cell[1]))
    if more := attempts(record):
        print("\n".join(["", *more]))
    return 0
