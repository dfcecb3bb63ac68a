# SPDX-License-Identifier: Apache-2.0
"""The loop itself: each test runs in one stage, and what measures waits for a quiet machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import quiet_machine, stages
from tests.quiet_machine import TooBusy
from tests.stages import Outcome

TOP = Path(__file__).resolve().parents[2]


def test_every_folder_of_tests_is_in_one_stage_and_measurements_are_in_the_last() -> None:
    folders = {f"tests/{path.relative_to(TOP / 'tests').parts[0]}" for path in (TOP / "tests").rglob("test_*.py")}
    beside = [folder for stage in stages.STAGES if stage.marked == "not alone" for folder in stage.folders]
    assert sorted(beside) == sorted(folders)
    (alone,) = (stage for stage in stages.STAGES if stage.marked == "alone")
    assert alone.workers == 1 and set(alone.folders) <= folders
    marked = [path for folder in folders - set(alone.folders) for path in (TOP / folder).rglob("test_*.py")
              if "mark" + ".alone" in path.read_text()]  # fmt: skip
    assert marked == [], "these would run in no stage"


def test_a_report_is_counted_and_none_is_a_failure(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert stages.outcome(report) == Outcome(0, 1, 0)
    report.write_text('<testsuites><testsuite tests="10" failures="2" errors="1" skipped="3"/></testsuites>')
    assert stages.outcome(report) == Outcome(4, 3, 3)
    assert str(stages.total([Outcome(4, 3, 3), Outcome(1, 0, 0)])) == "5 passed, 3 failed, 3 skipped"


def test_the_share_in_use_is_counted_from_the_kernels_ticks() -> None:
    readings = iter(["cpu 10 0 10 70 10 0 0 0 0 0\n", "cpu 30 0 10 130 30 0 0 0 0 0\n"])
    assert quiet_machine.busy_share(0.0, lambda: next(readings)) == pytest.approx(0.2)


def test_a_quiet_machine_is_waited_for_but_not_for_ever() -> None:
    shares: Iterator[float] = iter([0.9, 0.8, 0.1, 0.9])
    assert quiet_machine.wait(60.0, lambda: next(shares)) == 0.1
    assert quiet_machine.wait(0.0, lambda: next(shares)) == 0.9


def test_what_the_machine_was_too_busy_for_is_measured_again_and_what_is_wrong_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet_machine, "wait", lambda: 0.0)
    calls: list[str] = []

    @quiet_machine.measured
    def test(*errors: AssertionError | None) -> None:
        calls.append("")
        error = errors[len(calls) - 1]
        if error:
            raise error

    test(TooBusy("slow"), None)
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(AssertionError, match="a packet was lost"):
        test(AssertionError("a packet was lost"), None)
    assert len(calls) == 1
    calls.clear()
    with pytest.raises(TooBusy):
        test(*[TooBusy("slow")] * 3)
    assert len(calls) == quiet_machine.TRIES


@pytest.mark.parametrize(("load", "tries"), [(0.5, 1), (64_000.0, quiet_machine.TRIES)])
def test_a_timed_test_is_tried_again_only_on_a_crowded_machine(
    load: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    calls: list[str] = []

    @quiet_machine.timed
    def test() -> None:
        calls.append("")
        raise AssertionError("late")

    with pytest.raises(AssertionError, match="late"):
        test()
    assert len(calls) == tries
