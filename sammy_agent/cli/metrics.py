# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent metrics`: this machine's metrics over time, from the file: also when the agent is dead.

Exit statuses: 0 something was shown, 1 it cannot be read, 2 the command line is wrong, 3 there is no sample.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterable

from cc_sammy.common import terminal
from cc_sammy.common.text_table import table
from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.runtime import clock, timespec
from sammy_agent.base.runtime.clock import Timestamp, this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.metrics import summary
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.diagnostics.metrics.summary import Sample, Series

SINCE = "-1h"
WIDEST, NARROWEST, BESIDE = 60, 10, 66  # columns of the bars, and of what stands before them


def run(arguments: argparse.Namespace) -> int:
    """Show the samples; return the exit status. AgentError when they cannot be read."""
    now, boot = clock.now(), this_boot()
    store = MetricsStore(Paths(arguments.root).metrics, boot_id=boot, read_only=True)
    try:
        since = timespec.parse(arguments.since or SINCE, now)
    except timespec.TimeInvalid as error:
        print(f"sammy-agent: {error}", file=sys.stderr)
        return 2
    try:
        samples = store.samples(since)
        return _print_json(samples) if arguments.json else _print_table(samples, since, now, boot)
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{store.path} cannot be read: {error}",
            "A corrupt one is moved aside and recreated by the running agent: systemctl restart sammy-agent",
        ) from error


def _print_json(samples: Iterable[Sample]) -> int:
    """Print a list, one sample at a time: there may be many."""
    before = "["
    for sample in samples:
        print(f"{before}\n {json.dumps(sample)}", end="")
        before = ","
    print("[]" if before == "[" else "\n]")
    return 3 if before == "[" else 0


def _print_table(samples: Iterable[Sample], since: Timestamp, now: Timestamp, boot: str) -> int:
    width = min(WIDEST, shutil.get_terminal_size().columns - BESIDE)
    bars = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf") and width >= NARROWEST
    all_series: list[Series] = []
    number, first, last = 0, 0, 0
    for sample in samples:
        here = sample["boot_id"] == boot
        last = now.to_wall_clock(sample["created_at"], sample["boottime_us"], same_boot=here)
        if not all_series:  # the series starts at the first sample
            first = last
            all_series = [Series(row, max(first, since.wall), now.wall, max(width, 1)) for row in summary.ROWS]
        number += 1
        for series in all_series:
            series.add(last, sample)
    if not number:
        print("sammy-agent: no samples since then. Is the agent running? systemctl status sammy-agent",
              file=sys.stderr)  # fmt: skip
        return 3
    rows = summary.table(all_series, bars=bars)
    print("\n".join(table(rows, right=(1, 2, 3))))
    samples_word = "sample" if number == 1 else "samples"
    print(f"\n{number} {samples_word} from {terminal.format_time(first)[:16]} to {terminal.format_time(last)[:16]}")
    return 0
