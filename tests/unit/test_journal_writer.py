# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from cc_sammy.contract.journal_fields import USAGE_FIELDS
from cc_sammy.contract.run_record import RunRecord, Status, StepRecord
from cc_sammy.engine import journal_writer, run_reporter
from cc_sammy.engine.cloud_init_stages import StageTimeline
from cc_sammy.engine.journal_writer import NOTICE, JournalWriter, encode
from cc_sammy.host.fake import FakeHost


def test_a_value_with_a_newline_goes_with_its_length() -> None:
    assert encode({"A": "x", "B": "y\nz"}) == b"A=x\nB\n\x03\0\0\0\0\0\0\0y\nz\n"


def test_a_hung_journald_costs_one_limit_and_gets_all_events_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        writer = JournalWriter(path)
        begun = time.monotonic()
        for number in range(400):  # more than the socket's queue holds
            writer.send("event", NOTICE, {"SAMMY_SEQ": str(number)})
        # one wait of 0.2 s, not one an event: 400 of them would be 80 s
        assert time.monotonic() - begun < 20
        monkeypatch.setattr(journal_writer, "SEND_TIMEOUT", 0.01)  # it hangs again each ten events
        journald.setblocking(False)
        seen: list[bytes] = []
        while len(seen) < 400:
            try:
                seen.append(journald.recv(4096))
            except BlockingIOError:
                writer.send("more", NOTICE, {})
        assert [b"SAMMY_SEQ=%d\n" % number in seen[number] for number in range(400)] == [True] * 400


def test_a_restarted_journald_is_found_again_and_an_absent_one_is_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    writer = JournalWriter(path)
    writer.send("kept", NOTICE, {})
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(path)
            writer.send("now", NOTICE, {})
            assert b"MESSAGE=" in journald.recv(4096)
        os.unlink(path)
    writer.send("nobody", NOTICE, {})
    writer.flush()
    assert writer.lost == 1


def test_an_ended_steps_event_tells_what_its_commands_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "socket")
    monkeypatch.setattr(run_reporter, "JournalWriter", lambda: JournalWriter(path))
    record = RunRecord("r", "b", "i", 0.0, "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        journald.settimeout(30)
        reporter = run_reporter.RunReporter(FakeHost(), record, StageTimeline(None))
        reporter.ended(StepRecord("packages", Status.COMPLETED, cpu_ms=12.5, read_bytes=0, written_bytes=4096))
        lines = journald.recv(4096).splitlines()
        reporter.ended(StepRecord("firewall", Status.SKIPPED, reason="in force"))
        without = journald.recv(4096).splitlines()
    assert {b"SAMMY_CPU_MS=12.5", b"SAMMY_READ_BYTES=0", b"SAMMY_WRITTEN_BYTES=4096"} <= set(lines)
    names = [name.encode() for name in USAGE_FIELDS]
    assert [line for line in lines if line.startswith(b"SAMMY_PEAK_KB")] == []
    assert [line for line in without if line.partition(b"=")[0] in names] == []


class Stage:
    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told, self.description, self.result = name, told, "", "SUCCESS"

    def __enter__(self) -> Stage:
        self.told.append(f"+{self.name}")
        return self

    def __exit__(self, *_: object) -> None:
        self.told.append(f"-{self.name} {self.description} {self.result}")


def test_overlapping_steps_are_told_as_stages_that_never_overlap() -> None:
    told: list[str] = []
    timeline = StageTimeline(lambda name: Stage(name, told))
    timeline.started("a")
    timeline.started("b")
    timeline.started("c")
    timeline.ended("b", "b done", False)
    timeline.ended("a", "a done", True)
    timeline.ended("c", "c done", False)
    assert told == [
        "+a", "-a a done FAIL", "+b", "-b b done SUCCESS", "+c", "-c c done SUCCESS",
    ]  # fmt: skip
