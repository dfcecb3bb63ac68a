# SPDX-License-Identifier: Apache-2.0
"""`sammy status`: is this node ready, and if not, why and what next."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from cc_sammy.cli import agent_status
from cc_sammy.common import run_records
from cc_sammy.common.terminal import colorize
from cc_sammy.common.text_table import table
from cc_sammy.contract import paths, run_record
from cc_sammy.contract.run_record import Outcome, Status

NEXT = {
    Outcome.FAILED: "Fix the cause, then re-run: cloud-init single --name sammy --frequency always",
    Outcome.DEGRADED: "The node works. To repair it, re-run: cloud-init single --name sammy --frequency always",
    Outcome.RUNNING: "Follow it: journalctl -f -t sammy",
}


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("status", help="is this node ready, and if not, why")
    parser.add_argument("--json", action="store_true", help="print the state file's document and the agent's answer")


def run(arguments: argparse.Namespace) -> int:
    """Print the state of this boot; exit 0 ready and in contact, 1 failed or not in contact, 3 not yet."""
    try:
        record = run_records.load()
    except ValueError as error:
        print(f"sammy: {paths.STATE} is damaged ({error}). The next run replaces it", file=sys.stderr)
        return 1
    if record is None:
        print(
            "sammy has not run in this boot. Is there a sammy: key? See `cloud-init status --long`",
            file=sys.stderr,
        )
        return 3
    answer = agent_status.ask() if agent_status.is_expected() else None
    if arguments.json:
        print(json.dumps({**asdict(record), "agent": answer}, indent=1))
    else:
        lines = _lines(record)
        rows = agent_status.rows(answer) if agent_status.is_expected() else []
        print("\n".join([*lines, *(["", *table(rows)] if rows else [])]))
    own = {Outcome.FAILED: 1, Outcome.RUNNING: 3}.get(record.outcome, 0)
    return own or (agent_status.exit_status(answer) if agent_status.is_expected() else 0)


def _lines(record: run_record.RunRecord) -> list[str]:
    took = "" if record.duration_ms is None else f" after {record.duration_ms / 1000:.1f} s"
    lines = [f"node is {colorize(record.outcome.value, record.outcome.value)}{took} (run {record.run_id})"]
    if not record.steps and record.reason:
        lines.append(f"  {record.reason}")
    rows = [(step.name, step.status.value, step.reason) for step in record.steps]
    for step, line in zip(record.steps, table(rows) if rows else [], strict=True):
        mark = " (optional)" if step.status is Status.FAILED and not step.required else ""
        lines.append("  " + colorize(line, step.status.value) + mark)
    if record.outcome in NEXT:
        lines.append(NEXT[record.outcome])
    return lines
