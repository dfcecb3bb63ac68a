# SPDX-License-Identifier: Apache-2.0
"""The log reader over a real journald that is rotated, vacuumed, restarted and flushed while it is read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sammy_agent.diagnostics.logs import journal, merge, query, reader
from sammy_agent.diagnostics.logs.entry import Entry
from tests.lab.journald import Journald, journald
from tests.lab.shell import wait_until

pytestmark = pytest.mark.needs("root", "journald")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Journald]:
    with journald(tmp_path) as running:
        yield running


def page(daemon: Journald, **asked: str) -> merge.Page:
    return reader.page(query.parse(asked), str(daemon.root))


def messages(entries: list[Entry]) -> list[str]:
    return [entry.message for entry in entries]


def written(daemon: Journald, *numbers: int) -> None:
    for number in numbers:
        daemon.send(f"number {number} of the test", priority=number % 8)
    wait_until(lambda: daemon.holds(f"number {numbers[-1]} of the test"), "the entries are there", 30)


def pages(daemon: Journald, between: Callable[[int], None], **asked: str) -> list[Entry]:
    """Read page by page, doing something between any two."""
    entries: list[Entry] = []
    cursor = ""
    for turn in range(1000):
        found = page(daemon, cursor=cursor, **asked)
        entries += found.entries
        cursor = found.cursor
        if not cursor:
            return entries
        between(turn)
    raise AssertionError("the pages do not end")


class Followed:
    """A follower, read until it has said something."""

    def __init__(self, daemon: Journald, **asked: str) -> None:
        self._lists = reader.follow(query.parse(asked), str(daemon.root))
        self.entries = next(self._lists)

    def until(self, message: str) -> None:
        ends = time.monotonic() + 30
        while message not in messages(self.entries):
            assert time.monotonic() < ends, f"{message} does not come; the last are {messages(self.entries)[-5:]}"
            self.entries += next(self._lists)

    def numbers(self) -> list[int]:
        return [int(text.split()[1]) for text in messages(self.entries) if text.startswith("number")]


def test_pages_hold_every_entry_once_whatever_becomes_of_the_journal(daemon: Journald) -> None:
    written(daemon, *range(200))

    def meddle(turn: int) -> None:
        written(daemon, 1000 + turn)  # newer than all pages: in none
        if turn % 3 == 0:
            daemon.rotate()

    entries = pages(daemon, meddle, limit="17", search="number")
    assert messages(entries) == [f"number {number} of the test" for number in reversed(range(200))]
    assert [entry.time for entry in entries] == sorted((entry.time for entry in entries), reverse=True)


def test_a_search_whose_time_is_up_again_and_again_finds_each_once(daemon: Journald) -> None:
    written(daemon, *range(3000))
    entries: list[Entry] = []
    cursor, turns = "", 0
    while cursor or not turns:
        found = reader.page(query.parse({"search": "000 of", "cursor": cursor}), str(daemon.root), seconds=-1.0)
        entries, cursor, turns = [*entries, *found.entries], found.cursor, turns + 1
    assert messages(entries) == ["number 2000 of the test", "number 1000 of the test"]
    assert turns > 10


def test_entries_of_one_microsecond_are_told_apart_when_the_journal_was_moved() -> None:
    def fields(number: int, clock: int) -> dict[str, object]:
        return {"__CURSOR": f"s={'a' * 32};i={number:x};b={'b' * 32};m={clock:x};t={clock:x};x={number:x}"}

    def clock_of(cursor: str) -> int:
        return int(cursor.partition(";m=")[2].partition(";")[0], 16)

    class Moved:
        """A reader that finds an entry only by its boot's clock."""

        def __init__(self, entries: list[dict[str, object]]) -> None:
            self.left = entries

        def seek_cursor(self, cursor: str) -> None:
            self.left = [one for one in self.left if clock_of(str(one["__CURSOR"])) <= clock_of(cursor)]

        def get_next(self, way: int) -> dict[str, object]:
            return self.left.pop() if self.left else {}

    written = [fields(1, 5), fields(2, 7), fields(3, 7), fields(4, 7), fields(5, 9)]
    for at, left in ((written[2], written[2::-1]), (written[4], written[::-1]), (fields(9, 7), written[3::-1])):
        position = journal._pack(str(at["__CURSOR"]))
        assert list(journal._from(Moved(list(written)), position, None)) == left  # type: ignore[arg-type]


def test_a_vacuum_between_pages_ends_them_where_the_journal_now_begins(daemon: Journald) -> None:
    written(daemon, *range(50))
    daemon.rotate()
    written(daemon, *range(50, 100))
    entries = pages(daemon, lambda turn: daemon.vacuum() if turn == 5 else None, limit="10", search="number")
    assert messages(entries) == [f"number {number} of the test" for number in reversed(range(40, 100))][: len(entries)]
    assert len(entries) >= 50


def test_a_cursor_of_before_the_flush_holds_after_it(tmp_path: Path) -> None:
    with journald(tmp_path, flush=False) as daemon:
        written(daemon, *range(60))
        assert not daemon.files()
        entries = pages(daemon, lambda turn: daemon.flush() if turn == 2 else None, limit="7", search="number")
        assert daemon.files()
    assert messages(entries) == [f"number {number} of the test" for number in reversed(range(60))]


def test_level_time_and_source_are_told_by_the_journals_own_fields(daemon: Journald) -> None:
    written(daemon, *range(16))
    middle = page(daemon, search="number 8").entries[0].time
    assert {entry.message for entry in page(daemon, level="error", search="number").entries} == {
        f"number {number} of the test" for number in range(16) if number % 8 <= 3
    }
    assert len(page(daemon, level="warn", search="number").entries) == 10
    assert len(page(daemon, level="info", search="number").entries) == 14
    stamp = page(daemon, search="number 8").entries[0].document()["timestamp"]
    assert messages(page(daemon, since=stamp, search="number", limit="1000").entries)[-1] == "number 8 of the test"
    assert all(entry.time >= middle for entry in page(daemon, since=stamp).entries)
    until = page(daemon, until=stamp, search="number").entries
    assert messages(until)[0] == "number 8 of the test" and len(until) == 9
    daemon.send("a step of the boot", 5, SYSLOG_IDENTIFIER="sammy", SAMMY_STEP="firewall")
    daemon.send("a container's word", 6, CONTAINER_NAME="web-1", CONTAINER_ID_FULL="ab" * 32)
    daemon.send("another's word", 3, CONTAINER_NAME="db", CONTAINER_ID_FULL="cd" * 32)
    wait_until(lambda: daemon.holds("another's word"), "the entries are there", 30)
    (step,) = page(daemon, source="sammy").entries
    assert (step.source, step.metadata["step"], step.level) == ("sammy", "firewall", "info")
    assert messages(page(daemon, source="docker").entries) == ["another's word", "a container's word"]
    for pattern in ("web*", "web-?", "ab" * 6, "ab" * 32):
        (entry,) = page(daemon, container=pattern).entries
        assert (entry.message, entry.metadata["container"]) == ("a container's word", "web-1")
    assert page(daemon, container="we").entries == []
    others = {entry.source for entry in page(daemon, source="systemd", limit="1000").entries}
    assert others == {"systemd"}
    assert page(daemon, source="agent").entries == []


def test_names_that_only_root_may_use_do_not_count_from_others(daemon: Journald) -> None:
    path = daemon.root / "run/systemd/journal/socket"
    for folder in (daemon.root, *daemon.root.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)
    forge = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
channel.connect({str(path)!r})
channel.send(b"SYSLOG_IDENTIFIER=sammy\\nCONTAINER_NAME=web\\nUNIT=sammy-agent.service\\nPRIORITY=3\\nMESSAGE=forged\\n")
"""
    subprocess.run([sys.executable, "-c", forge], check=True)
    wait_until(lambda: daemon.holds("forged"), "the entry is there", 30)
    (entry,) = page(daemon, search="forged").entries
    assert entry.source == "systemd"
    assert [page(daemon, source=source).entries for source in ("sammy", "docker", "agent")] == [[], [], []]


def test_binary_and_endless_messages_are_bounded(daemon: Journald) -> None:
    daemon.send(b"\x00\xff\x1b[31mbinary\nof two lines")
    daemon.send("x" * 40_000 + "the end")
    wait_until(lambda: daemon.holds("the end"), "the entries are there", 30)
    long, binary = [entry for entry in page(daemon).entries if entry.metadata["identifier"] == "test"]
    assert len(long.message) < 17_000 and long.message.endswith("(cut after 16 KiB)")
    assert binary.message == "\x00\ufffd\x1b[31mbinary\nof two lines"


def test_following_loses_and_repeats_nothing(daemon: Journald) -> None:
    written(daemon, *range(150))
    followed = Followed(daemon, search="number")
    assert followed.numbers() == list(range(50, 150))  # the newest hundred, oldest first
    at = 150
    for disturb in ("rotate", "nothing", "vacuum", "restart", "rotate", "vacuum"):
        written(daemon, *range(at, at + 20))
        at += 20
        if disturb == "rotate":
            daemon.rotate()
        elif disturb == "vacuum":
            followed.until(f"number {at - 1} of the test")  # what is vacuumed away before it is read, is gone
            daemon.vacuum()
        elif disturb == "restart":
            daemon.stop()
            daemon.start()
    written(daemon, at)
    followed.until(f"number {at} of the test")
    assert followed.numbers() == list(range(50, at + 1))


def test_a_flood_is_followed_whole_and_in_order(daemon: Journald) -> None:
    followed = Followed(daemon, search="number")
    for number in range(3000):
        daemon.send(f"number {number} of the test" if number < 1200 or number == 2999 else "of no interest")
    followed.until("number 2999 of the test")
    assert followed.numbers() == [*range(1200), 2999]


def test_following_goes_on_when_the_journal_moves_to_a_disk_that_was_not_there(tmp_path: Path) -> None:
    with journald(tmp_path, flush=False) as daemon:
        (tmp_path / "var/log/journal").rename(tmp_path / "var/log/mounted")  # journald has it, the reader not yet
        written(daemon, *range(10))
        followed = Followed(daemon, search="number")
        written(daemon, 10)
        followed.until("number 10 of the test")
        (tmp_path / "var/log/mounted").rename(tmp_path / "var/log/journal")
        daemon.flush()
        written(daemon, 11)
        followed.until("number 11 of the test")
    assert followed.numbers() == list(range(12))


def test_a_journal_that_is_not_there_yet_is_followed_from_its_first_entry(tmp_path: Path) -> None:
    daemon = Journald(tmp_path)
    followed = Followed(daemon)
    assert followed.entries == []
    daemon.start()
    try:
        daemon.send("number 0 of the test")
        followed.until("number 0 of the test")
    finally:
        daemon.close()


def test_the_command_follows_and_asks_like_a_person(daemon: Journald) -> None:
    written(daemon, *range(20))
    command = [sys.executable, "-m", "sammy_agent", "logs", "--root", str(daemon.root)]
    shown = subprocess.run([*command, "--search", "number", "-n", "3"], capture_output=True, text=True, check=True)
    assert [line.split("test: ")[1] for line in shown.stdout.splitlines()] == [
        f"number {number} of the test" for number in (17, 18, 19)
    ]
    with subprocess.Popen(
        [*command, "-f", "-n", "2", "--json", "--search", "number"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            first = [json.loads(process.stdout.readline())["message"] for _ in range(2)]
            daemon.send("number 20 of the test")
            assert json.loads(process.stdout.readline())["message"] == "number 20 of the test"
        finally:
            process.send_signal(2)
        assert first == ["number 18 of the test", "number 19 of the test"]
        assert process.wait(30) == 0
