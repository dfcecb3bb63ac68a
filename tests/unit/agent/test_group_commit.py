# SPDX-License-Identifier: Apache-2.0
"""Group commit: callers share a transaction, each gets its own result, and nobody waits for ever."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sammy_agent.daemon.outbox.group_commit import GroupCommit, NotWriting, WriteRequest


class Disk:
    """What commits, held up and failing as a test wants."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.free, self.begun = threading.Event(), threading.Event()
        self.free.set()
        self.error: BaseException | None = None
        self.commits: list[int] = []
        self.after: list[int] = []
        self.writer = GroupCommit("writer", self.commit, self.after.append)

    def commit(self, requests: Sequence[WriteRequest]) -> int:
        self.begun.set()
        assert self.free.wait(30)
        if self.error is not None:
            raise self.error
        for request in requests:
            request.result = request.work(self.db)
        self.commits.append(len(requests))
        return len(requests) - 1


def returns(value: object, _: sqlite3.Connection) -> object:
    return value


def test_no_thread_is_started_before_the_first_change() -> None:
    before = threading.active_count()
    disk = Disk()
    assert threading.active_count() == before
    disk.writer.submit(lambda db: None)
    assert threading.active_count() == before + 1
    disk.writer.close()
    assert threading.active_count() == before
    Disk().writer.close()


def test_callers_that_wait_share_one_commit_and_each_gets_its_result() -> None:
    disk = Disk()
    disk.free.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(disk.writer.submit, lambda db: "first")
        assert disk.begun.wait(30)
        rest = [pool.submit(disk.writer.submit, partial(returns, number)) for number in range(19)]
        while disk.writer._requests.qsize() < 19:
            pass
        disk.free.set()
        assert first.result(30) == "first" and [one.result(30) for one in rest] == list(range(19))
    disk.writer.close()
    assert disk.commits == [1, 19] and disk.after == [18], "0 needs no word afterwards"


def test_what_the_commit_raises_every_caller_gets_and_the_next_may_succeed() -> None:
    disk = Disk()
    disk.error = sqlite3.OperationalError("database or disk is full")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            disk.writer.submit(lambda db: None)
    disk.error = None
    assert disk.writer.submit(lambda db: 7) == 7
    disk.writer.close()


def test_a_closed_one_takes_no_change_and_closing_writes_what_waits() -> None:
    disk = Disk()
    disk.free.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(disk.writer.submit, lambda db: "written")
        assert disk.begun.wait(30)
        disk.free.set()
        disk.writer.close()
        assert waiting.result(30) == "written"
    with pytest.raises(NotWriting, match="closed"):
        disk.writer.submit(lambda db: None)


def test_a_machine_without_a_thread_left_refuses_and_the_next_change_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(NotWriting, match="can't start new thread"):
            disk.writer.submit(lambda db: None)
    assert disk.writer.submit(lambda db: "later") == "later"
    disk.writer.close()
