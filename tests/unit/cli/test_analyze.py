# SPDX-License-Identifier: Apache-2.0
"""The analysis of a run whose critical chain is known by hand."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.cli import boot_stages, critical_path, timeline_svg
from cc_sammy.cli.main import main
from cc_sammy.contract.run_record import AttemptRecord, Outcome, RunRecord, Status, StepRecord
from cc_sammy.host.fake import FakeHost
from tests.unit.fake_files import lay_out


def step(name: str, begin: float, seconds: float, after: str = "", uses: str = "", **used: Any) -> StepRecord:
    """A step that began so many seconds after the run."""
    return StepRecord(
        name, Status.COMPLETED, started=100 + begin, duration_ms=seconds * 1000, after=after.split(), uses=uses.split(),
        **used,
    )  # fmt: skip


# firewall 1 s; then packages 10 s (apt) beside nodejs 4 s; docker 2 s waits for packages, agent 3 s for apt
STEPS = [
    step("firewall", 0, 1),
    step("packages", 1, 10, "firewall", "apt", cpu_ms=4321.6, peak_kb=120_000, read_bytes=1_500_000, written_bytes=0),
    step("nodejs", 1, 4, "firewall"),
    step("docker", 11, 2, "packages", "apt"),
    step("agent", 13, 3, "firewall", "apt"),
]
RECORD = RunRecord("20261124T104646-1", "b", "i", 100.0, "", Outcome.READY, "", 16000.0, STEPS)


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cc_sammy.common.run_records.load", lambda path="": RECORD)


def test_the_critical_chain_goes_through_what_was_used_alone() -> None:
    chain = [span.name for span in critical_path.critical_chain(critical_path.spans(RECORD))]
    assert chain == ["firewall", "packages", "docker", "agent"]


def test_slack_and_gain_are_what_they_would_be() -> None:
    found = {
        cost.span.name: (cost.slack, cost.saving) for cost in critical_path.step_costs(critical_path.spans(RECORD))
    }
    assert found["nodejs"] == pytest.approx((11000, 0))
    assert found["agent"] == pytest.approx((0, 3000))
    # Without packages the other way, by nodejs, is still shorter than what follows on apt.
    assert found["packages"] == pytest.approx((0, 10000))


def test_blame_and_chain_are_printed_and_have_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "blame"]) == 0
    _, first, second, *_ = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert first == ["packages", "10000", "0", "10000", "4322", "123", "1.5", "0.0"]
    assert second == ["nodejs", "4000", "11000", "0", "-", "-", "-", "-"]
    assert main(["analyze", "blame", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["peak_kb"] == 120_000
    assert main(["timings", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["written_bytes"] == 0
    assert main(["analyze", "critical-chain"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("agent @13.000s +3.000s\n└─docker @11.000s")
    assert "Most to gain: packages; without it the run is 10.0 s shorter." in said
    assert main(["analyze", "critical-chain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "firewall"


def test_the_plot_is_svg_with_one_bar_a_step_in_its_place(tmp_path: Path) -> None:
    assert main(["analyze", "plot", "--output", f"{tmp_path}/run.svg"]) == 0
    root = ET.fromstring((tmp_path / "run.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in root.iter(f"{space}rect") if rect.find(f"{space}title") is not None]
    assert len(bars) == len(STEPS)
    by_name = {bar.find(f"{space}title").text.partition(":")[0]: bar for bar in bars}  # type: ignore[union-attr]
    begin, width = (float(by_name["docker"].get(key) or 0) for key in ("x", "width"))
    assert begin + width == pytest.approx(float(by_name["agent"].get("x") or 0), abs=0.2)
    assert "prefers-color-scheme: dark" in (tmp_path / "run.svg").read_text()


@pytest.mark.parametrize(("seconds", "expected"), [(0.4, 0.05), (8, 1), (17, 5), (57.6, 10), (400, 50)])
def test_the_axis_has_round_ticks_and_not_too_many(seconds: float, expected: float) -> None:
    assert timeline_svg.tick(seconds) == pytest.approx(expected)
    assert 3 <= seconds / timeline_svg.tick(seconds) <= 12


def test_no_such_run_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cc_sammy.common.run_records.load", lambda path="": None)
    assert main(["analyze", "blame"]) == 3
    assert "no such run" in capsys.readouterr().err


def test_timings_tell_attempts_only_where_there_was_more_than_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["timings"]) == 0
    assert "attempt" not in capsys.readouterr().out
    tried = step("docker", 0, 9, attempt=3, first=AttemptRecord(100.0, 10, "no route"), last=AttemptRecord(107.5, 20))
    record = RunRecord("r", "b", "i", 100.0, "", Outcome.READY, "", 9000.0, [tried])
    monkeypatch.setattr("cc_sammy.common.run_records.load", lambda path="": record)
    assert main(["timings"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "docker, attempt 1 of 3, 0.000 s after the run's begin, 10 ms: no route",
        "docker, attempt 3 of 3, 7.500 s after the run's begin, 20 ms",
    ]
    assert main(["timings", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]["first"]
    assert first == {"started": 100.0, "duration_ms": 10, "reason": "no route"}


BOOT_ID = "/proc/sys/kernel/random/boot_id"
SHOW_STAGES = (
    "Id=cloud-final.service\nInactiveExitTimestampMonotonic=9000000\nActiveEnterTimestampMonotonic=30000000\n\n"
    "Id=cloud-init-local.service\nInactiveExitTimestampMonotonic=5000000\nActiveEnterTimestampMonotonic=6000000\n\n"
    "Id=cloud-init-main.service\nInactiveExitTimestampMonotonic=\nActiveEnterTimestampMonotonic=\n"
)


def booted(fs: FakeFilesystem, *, container: bool = False) -> FakeHost:
    lay_out(fs, {BOOT_ID: "b-1\n", **({boot_stages.CONTAINER: ""} if container else {})})
    host = FakeHost()
    host.script(["systemctl", "show", boot_stages.USERSPACE], stdout="UserspaceTimestampMonotonic=3000000\n")
    host.script(["systemctl", "show", boot_stages.MOMENTS], stdout=SHOW_STAGES)
    return host


def test_before_the_steps_come_kernel_systemd_and_cloud_inits_stages(fs: FakeFilesystem) -> None:
    assert boot_stages.of_boot(booted(fs), "b-1") == [
        ("kernel", 0.0, 3.0),
        ("systemd", 3.0, 5.0),
        ("cloud-init-local", 5.0, 6.0),
        ("cloud-final", 9.0, 30.0),
    ]


def test_a_containers_boot_does_not_begin_with_its_hosts_kernel(fs: FakeFilesystem) -> None:
    assert boot_stages.of_boot(booted(fs, container=True), "b-1")[0] == ("systemd", 3.0, 5.0)


def test_another_boots_stages_come_from_the_journal(fs: FakeFilesystem) -> None:
    lay_out(fs, {BOOT_ID: "b-2\n"})
    host = FakeHost()
    entries = [
        {"UNIT": "cloud-final.service", "MESSAGE_ID": boot_stages.STARTING, "__MONOTONIC_TIMESTAMP": "9000000"},
        {"UNIT": "cloud-final.service", "MESSAGE_ID": boot_stages.STARTED, "__MONOTONIC_TIMESTAMP": "30000000"},
        {"UNIT": "cloud-config.service", "MESSAGE_ID": boot_stages.STARTED, "__MONOTONIC_TIMESTAMP": "8000000"},
    ]
    host.script(["journalctl"], stdout="".join(json.dumps(entry) + "\n" for entry in entries))
    assert boot_stages.of_boot(host, "b-1") == [("cloud-final", 9.0, 30.0)]
    assert "_BOOT_ID=b1" in host.calls[0]
    assert boot_stages.of_boot(FakeHost(), "b-1") == []


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "0 ms"), (0.1164, "116 ms"), (1.454, "1.45 s"), (17.06, "17.1 s")])
def test_durations_are_said_as_one_says_them(seconds: float, said: str) -> None:
    assert timeline_svg.shown(seconds) == said


def test_the_picture_tells_failure_attempts_chain_and_what_is_to_spare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = step("docker", 11, 2, "packages", "apt", attempt=3)
    failed.status = Status.FAILED
    record = replace(RECORD, steps=[*STEPS[:3], failed, STEPS[4]], outcome=Outcome.FAILED)
    monkeypatch.setattr("cc_sammy.common.run_records.load", lambda path="": record)
    assert main(["analyze", "plot"]) == 0
    said = capsys.readouterr().out
    for words in ("Boot steps: failed after 16.0 s", "without packages it would be", "2.00 s, failed, 3 attempts",
                  "nodejs: 4.00 s, 11.0 s to spare", "time to spare", "uses apt alone"):  # fmt: skip
        assert words in said, words
    assert "uses Docker alone" not in said, "the legend explains what is there"
    assert said.count('class="chain"') == 3 + 1  # four steps on the chain, and the legend
