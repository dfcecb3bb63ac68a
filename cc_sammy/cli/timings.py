# SPDX-License-Identifier: Apache-2.0
"""`sammy timings`: what each step cost, as in the journal entry this project comes from."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from cc_sammy.cli.text import paint, table
from cc_sammy.contract import paths, state
from cc_sammy.contract.fields import USAGE_FIELDS, Outcome


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("timings", help="what each step cost")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    add_run(parser)


def add_run(parser: Any) -> None:
    """Add the option that chooses a run."""
    parser.add_argument("--run", metavar="ID", help="a stored run, or 'first' or 'last'; default: this boot's")


def chosen(wanted: str | None) -> state.RunRecord | None:
    """Return the run that --run names, this boot's without it; None when there is none."""
    if wanted is None:
        return state.load()
    stored = state.stored_runs()
    if wanted in ("first", "last"):
        return state.load(stored[0 if wanted == "first" else -1]) if stored else None
    return state.load(f"{paths.RUNS}/{wanted.replace('/', '_')}.json")


def rows(record: state.RunRecord) -> list[dict[str, Any]]:
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


def _first_and_last(step: state.StepRecord) -> dict[str, Any]:
    return {name: asdict(one) for name, one in (("first", step.first), ("last", step.last)) if one is not None}


def attempts(record: state.RunRecord) -> list[str]:
    """Return one line for the first and one for the last attempt at each step that was tried more than once."""
    lines = []
    for step in record.steps:
        for number, one in ((1, step.first), (step.attempt, step.last)):
            if one is not None:
                when = f"{one.started - record.started:.3f} s after the run's begin"
                why = f": {one.reason}" if one.reason else ""
                lines.append(f"{step.name}, attempt {number} of {step.attempt}, {when}, {one.duration_ms:.0f} ms{why}")
    return lines


def run(arguments: argparse.Namespace) -> int:
    """Print the table; exit 3 when there is no such run."""
    record = chosen(arguments.run)
    if record is None:
        print(f"sammy: no such run. The stored ones are in {paths.RUNS}", file=sys.stderr)
        return 3
    if arguments.json:
        print(json.dumps(rows(record), indent=1))
        return 0
    cells = [("STEP", "STATUS", "DURATION_MS")]
    for row in rows(record):
        duration = "-" if row["duration_ms"] is None else f"{row['duration_ms']:.0f}"
        cells.append((row["step"], row["status"], duration))
    for cell, line in zip(cells, table(cells, right=(2,)), strict=True):
        print(paint(line, cell[1]))
    if more := attempts(record):
        print("\n".join(["", *more]))
    return 0
