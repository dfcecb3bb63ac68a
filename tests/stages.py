# SPDX-License-Identifier: Apache-2.0
"""All tests in stages: side by side where names and ports carry the process id, alone what measures the machine.

`tests/run` without a path calls this, as CI does; it prints what each stage cost, and one closing line for all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "build" / "tests"
NOTHING_COLLECTED = 5  # pytest's exit status; `-k` may leave a stage without a test


class Stage(NamedTuple):
    """Some folders of tests; `workers` processes run them, whole files or, where files hold little, single tests."""

    name: str
    folders: tuple[str, ...]
    workers: int = 1
    by_file: bool = True
    marked: str = "not alone"

    def words(self, report: Path) -> list[str]:
        """Return pytest's words for it."""
        words = [f"--junitxml={report}", "-m", self.marked]
        if self.workers > 1:
            words += ["-n", str(self.workers), "--dist", "loadfile" if self.by_file else "load"]
        return [*words, *self.folders]


MACHINES = ("tests/agent", "tests/network", "tests/package", "tests/vm")
STAGES = (
    Stage("unit and contract", ("tests/unit", "tests/contract"), workers=3, by_file=False),
    # They wait more than they compute: three at a time keep two cores busy. The longest files come first.
    Stage("network and agent", ("tests/network", "tests/agent"), workers=3),
    Stage("machines and packages", ("tests/vm", "tests/package"), workers=2),
    Stage("alone", MACHINES, marked="alone"),
)


class Outcome(NamedTuple):
    """What became of one stage's tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def outcome(report: Path) -> Outcome:
    """Read pytest's report; a stage that left none has failed as a whole."""
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (OSError, ET.ParseError):
        return Outcome(failed=1)
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return Outcome(max(0, tests - failed - skipped), failed, skipped)


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """Add them up."""
    return Outcome(*(sum(counted) for counted in zip(*outcomes, strict=True)))


def run(stage: Stage, options: Sequence[str]) -> tuple[int, Outcome]:
    """Run one stage, its output passing through; return pytest's exit status and what became of the tests."""
    report = RESULTS / f"{stage.name.replace(' ', '-')}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *stage.words(report), *options]
    status = subprocess.run(command, cwd=TOP, check=False).returncode
    return (0, Outcome()) if status == NOTHING_COLLECTED else (status, outcome(report))


def main(options: Sequence[str]) -> int:
    """Run them all, each whatever became of those before; return 1 when one failed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    costs: list[str] = []
    outcomes: list[Outcome] = []
    failed = False
    begun = time.monotonic()
    for stage in STAGES:
        print(f"\n== tests: {stage.name} ({time.monotonic() - begun:.0f} s)", flush=True)
        since = time.monotonic()
        status, became = run(stage, options)
        failed |= status != 0
        outcomes.append(became)
        costs.append(f"{time.monotonic() - since:6.0f} s  tests: {stage.name}: {became}")
    (RESULTS / "costs.txt").write_text("\n".join(costs) + "\n")
    print("\n" + "\n".join(costs))
    closing = f"== {total(outcomes)} in {time.monotonic() - begun:.0f} s =="
    (RESULTS / "closing.txt").write_text(closing + "\n")
    print(closing, flush=True)
    return int(failed)


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main(sys.argv[1:]))
