# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent events` and `metrics` as a person and a script meet them; no agent runs here."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import datetime
from pathlib import Path

import pytest

import cc_sammy.cli.main
from cc_sammy.common import agent_commands
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import NewEvent
from sammy_agent.base.runtime import clock, timespec
from sammy_agent.base.runtime.clock import Timestamp, this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.cli import main
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.recorder import Recorder
from sammy_agent.diagnostics.metrics import summary
from sammy_agent.diagnostics.metrics.definitions import METRICS, NAMES
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore

TOP = Path(__file__).resolve().parents[3]
NOW = Timestamp(1_795_600_000_000_000, 5_000_000_000)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A machine whose agent died after it had told a few things."""
    paths = Paths(str(tmp_path))
    before = Recorder(EventStore(paths.events, boot_id="boot-before"), "boot-before")
    before.record(kinds.AGENT_STARTED, "began")
    before.run_once()
    recorder = Recorder(EventStore(paths.events, boot_id=this_boot()), this_boot())
    recorder.record(kinds.CONTACT_LOST, "no answer \x1b[2J", detail={"code": "no-answer"})
    recorder.record(kinds.CONTACT_REGAINED, "again", seconds=1.0)
    recorder.run_once()
    metrics = MetricsStore(paths.metrics, boot_id=this_boot())
    now = clock.now()
    for number in range(10):
        at = Timestamp(now.wall - (10 - number) * 60_000_000, now.boot - (10 - number) * 60_000_000)
        metrics.add(
            {"interval_s": 60, "cpu_user": 10.0 * number, "cpu_system": 1, "load1": number, "uplink_rx": 61_440}, at
        )
    return str(tmp_path)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main.main(list(words))
    told = capsys.readouterr()
    return status, told.out, told.err


def test_events_for_a_person(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = shown(capsys, "events", "--root", root)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0] == "-- boot boot-before --" and lines[2] == f"-- boot {this_boot()} (this one) --"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  info   agent\.started +began", lines[1])
    assert lines[3].endswith(r"no answer \x1b[2J"), "nothing repaints the terminal"
    assert lines[4].split()[2:] == ["info", "contact.regained", "again"]
    assert len(lines) == 5


def test_a_person_reads_by_time_what_was_told_late(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = EventStore(Paths(root).events, boot_id=this_boot())
    last = store.events(EventQuery(1))[0]
    earlier = {"created_at": last["created_at"] - 3_000_000, "boottime_us": last["boottime_us"] - 3_000_000}
    store.add([NewEvent(**earlier, boot_id=this_boot(), level="info", type="provision.x", message="x completed")])
    _, out, _ = shown(capsys, "events", "--root", root)
    assert [line.split()[3] for line in out.splitlines() if not line.startswith("--")] == [
        "provision.x", "agent.started", "contact.lost", "contact.regained"
    ]  # fmt: skip
    _, out, _ = shown(capsys, "events", "--root", root, "--json")
    assert json.loads(out)[-1]["type"] == "provision.x", "for a script the order is that of the numbers"


def test_events_for_a_script(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = shown(capsys, "events", "--root", root, "--json", "--level", "warn", "--since", "-5m")
    (event,) = json.loads(out)
    assert status == 0 and event["detail"] == {"code": "no-answer"} and event["type"] == "contact.lost"
    status, out, _ = shown(capsys, "events", "--root", root, "--json", "-n", "2", "--type", "contact.")
    assert [event["message"] for event in json.loads(out)] == ["no answer \x1b[2J", "again"], "oldest first"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--level", "loud"], 2, "invalid level 'loud'. Choose from debug, info, warn, error"),
        (["--since", "-5x"], 2, "invalid time '-5x'. Use -5m"),
        (["--limit", "0"], 2, "invalid --limit '0'"),
        (["--type", "nothing."], 3, "no such event"),
        (["--run", "r", "--json"], 3, ""),
    ],
)
def test_what_is_not_there_or_wrong_is_said(
    root: str, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    got, out, err = shown(capsys, "events", "--root", root, *words)
    assert got == status and said in err and out in ("", "[]\n")


def test_a_machine_without_files_and_one_with_damaged_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    assert shown(capsys, "events", "--root", root)[::2] == (
        3, f"sammy-agent: no events yet in {root}/var/lib/sammy/agent/events.db. "
        "Is the agent running? systemctl status sammy-agent\n",
    )  # fmt: skip
    assert shown(capsys, "metrics", "--root", root)[0] == 3
    assert shown(capsys, "metrics", "--root", root, "--json")[:2] == (3, "[]\n")
    assert not (tmp_path / "var").exists(), "who only reads leaves nothing behind"
    for path in (Paths(root).events, Paths(root).metrics):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).write_bytes(b"no database" * 1000)
    for word in ("events", "metrics"):
        status, _, err = shown(capsys, word, "--root", root)
        assert status == 1 and "cannot be read: file is not a database" in err and "systemctl restart" in err


def test_following_shows_the_newest_and_what_comes(
    root: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(EventStore(Paths(root).events, boot_id=this_boot()), this_boot())
    looks = iter(range(3))

    def sleep(_: float) -> None:
        look = next(looks, None)
        if look is None:
            raise KeyboardInterrupt
        recorder.record(kinds.READY_FORGOTTEN, f"news {look}")
        recorder.record(kinds.TOKEN_SET, f"calm {look}")
        recorder.run_once()

    monkeypatch.setattr(time, "sleep", sleep)
    status, out, _ = shown(capsys, "events", "--root", root, "--follow", "--json", "--level", "warn")
    assert status == 0
    assert [json.loads(line)["message"] for line in out.splitlines()] == [
        "no answer \x1b[2J", "news 0", "news 1", "news 2"
    ]  # fmt: skip


def test_metrics_for_a_person_and_a_script(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = shown(capsys, "metrics", "--root", root)
    lines = out.splitlines()
    assert status == 0 and lines[0].split() == ["METRIC", "NOW", "MEAN", "MAX"]
    assert lines[1].split() == ["CPU", "91.0", "%", "46.0", "%", "91.0", "%"]
    assert any(re.split(r"\s{2,}", line) == ["network in", "1.0 KiB/s", "1.0 KiB/s", "1.0 KiB/s"] for line in lines)
    assert "swap" not in out, "what this machine does not have is left out"
    assert lines[-1].startswith("10 samples from ")
    status, out, _ = shown(capsys, "metrics", "--root", root, "--json", "--since", "-210s")
    samples = json.loads(out)
    assert [sample["load1"] for sample in samples] == [7, 8, 9] and set(NAMES) < set(samples[0])


def test_a_course_has_a_bar_for_what_is_known_and_a_blank_for_what_is_not() -> None:
    row = summary.TableRow("x", lambda sample: sample["x"], summary.percent, 100)
    series = summary.Series(row, 0, 10, 10)
    for at, value in ((0, 0.0), (1, 50.0), (1.5, 100.0), (3, None), (9.9, 25.0)):
        series.add(at, {"x": value})
    assert series.bars() == "▁█       ▃"
    assert series.cells() == ("x", "25.0 %", "43.8 %", "100.0 %")
    assert summary.Series(row, 0, 1, 1).cells() is None


def test_every_row_of_the_table_takes_its_figures_from_a_sample() -> None:
    whole = dict.fromkeys(NAMES, 1.0)
    assert all(row.value(whole) is not None for row in summary.ROWS)
    assert all(row.value(dict.fromkeys(NAMES)) is None for row in summary.ROWS)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("-5m", 300), ("90s", 90), ("2h ago", 7200), ("-1d", 86400), ("10 min", 600)],
)
def test_times_from_now_go_by_both_clocks(text: str, ago: int) -> None:
    assert timespec.parse(text, NOW) == Timestamp(NOW.wall - ago * 10**6, NOW.boot - ago * 10**6)


def test_times_by_the_calendar() -> None:
    def at(text: str) -> float:
        return timespec.parse(text, NOW).wall / 1e6

    assert timespec.parse("boot", NOW) == Timestamp(NOW.wall - NOW.boot, 0)
    assert at("2026-11-24T10:46:49Z") == datetime.fromisoformat("2026-11-24T10:46:49+00:00").timestamp()
    assert at("2026-11-24T10:46:49.5+02:00") == datetime.fromisoformat("2026-11-24T08:46:49.500+00:00").timestamp()
    assert at("2026-11-24 10:46:49") == datetime(2026, 11, 24, 10, 46, 49).timestamp()
    assert at("2026-11-24") == datetime(2026, 11, 24).timestamp()
    midnight = datetime.fromtimestamp(NOW.wall / 1e6).replace(hour=0, minute=0, second=0, microsecond=0)
    assert at("today") == midnight.timestamp() and at("yesterday") < at("today")
    for text in ("", "soon", "2026-13-01", "-5x", "5", "10:00"):
        with pytest.raises(timespec.TimeInvalid, match="invalid time"):
            timespec.parse(text, NOW)


def test_sammy_hands_the_agents_verbs_over_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, words: became.append([program, *words]))
    typed = ["events", "--since", "-5m", "-n", "3", "--run", "x y", "-f", "--no-such", "--json", "--help"]
    cc_sammy.cli.main.main(typed)
    assert became == [["sammy-agent", "sammy-agent", *typed]]
    for name in agent_commands.AGENT_COMMANDS:
        cc_sammy.cli.main.main([name])
        assert became[-1] == ["sammy-agent", "sammy-agent", name]


def test_the_documentation_lists_every_kind_and_every_metric() -> None:
    text = (TOP / "docs" / "events.md").read_text()
    lines = [
        f"| `{kind.type}` | {kind.level}{', reported' if kind.incident else ''} | {kind.meaning} |"
        for kind in kinds.KINDS
    ]
    lines += [f"| `{metric.name}` | {metric.unit} | {metric.meaning} |" for metric in METRICS]
    lacking = [line for line in lines if f"{line}\n" not in text]
    assert lacking == [], "these lines belong into docs/events.md, in the place of those of their names"
    listed = re.findall(r"^\| `([a-z0-9_.-]+)` \|", text, re.M)
    assert len(listed) == len(kinds.KINDS) + len(METRICS), "and no other"
