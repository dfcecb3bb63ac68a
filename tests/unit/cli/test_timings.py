# SPDX-License-Identifier: Apache-2.0
"""The timings as a file of their own: the journal entry's columns, and sums that are true."""

from __future__ import annotations

import re

from cc_sammy.cli import timings
from cc_sammy.contract.run_record import AttemptRecord, Outcome, RunRecord, Status, StepRecord


def test_the_sum_leaves_out_the_total_and_the_wall_clock_has_milliseconds() -> None:
    first = AttemptRecord(11.0, 100.0, "mirror\nis down")
    record = RunRecord(
        "20261124T104646-1a2b3c4d", "b", "i", 10.0, "2026-11-24T10:46:46.000+00:00", Outcome.DEGRADED, "image-prepull",
        2500.4,
        [
            StepRecord("packages", Status.COMPLETED, started=10.5, duration_ms=1000.0),
            StepRecord("image-prepull", Status.FAILED, started=11.0, duration_ms=1250.25, reason="no\nroute", attempt=3,
                       first=first, last=AttemptRecord(12.0, 250.0, "no route")),
            StepRecord("swap", Status.SKIPPED, reason="swap.size is 0"),
            StepRecord("metadata-block", Status.PENDING),
        ],
    )  # fmt: skip
    lines = timings.long_report(record)
    assert [re.split(" {2,}", line) for line in lines[3:8]] == [
        ["STEP", "STATUS", "STARTED_AT", "ENDED_AT", "DURATION_MS", "ATTEMPTS", "REASON"],
        ["packages", "completed", "2026-11-24T10:46:46.500+00:00", "2026-11-24T10:46:47.500+00:00", "1000", "1"],
        ["image-prepull", "failed", "2026-11-24T10:46:47.000+00:00", "2026-11-24T10:46:48.250+00:00", "1250", "3",
         "no route"],
        ["swap", "skipped", "-", "-", "-", "-", "swap.size is 0"],
        ["metadata-block", "pending", "-", "-", "-", "-"],
    ]  # fmt: skip
    assert lines[:3] == [
        "sammy: provisioning timings, run 20261124T104646-1a2b3c4d, outcome degraded",
        "=" * 75,
        "",
    ]
    assert lines[8:] == [
        "",
        "Sum of per-step durations:   2250 ms (2.3 s)",
        "Wall-clock (first to last):  1750 ms (1.8 s)",
        "Whole run:                   2500 ms (2.5 s)",
        "Reason: image-prepull",
        "",
        "image-prepull, attempt 1 of 3, 1.000 s after the run's begin, 100 ms: mirror\nis down",
        "image-prepull, attempt 3 of 3, 2.000 s after the run's begin, 250 ms: no route",
    ]  # fmt: skip


def test_a_run_in_which_nothing_began_has_sums_of_nothing() -> None:
    record = RunRecord("r", "b", "i", 10.0, "no time at all", steps=[StepRecord("packages", started=None)])
    assert "Sum of per-step durations:   0 ms (0.0 s)" in timings.long_report(record)
