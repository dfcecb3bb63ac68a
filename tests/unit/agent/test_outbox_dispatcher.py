# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: what an earlier process left is found, a disk that fails is read again, delays end when told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sammy_agent.base.runtime.clock import Clock
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.daemon.outbox.channels import MESSAGES, Channel, Lane, NewRow, Priority
from sammy_agent.daemon.outbox.dispatcher import QUEUE_RETRY_SECONDS, Dispatcher
from sammy_agent.daemon.outbox.queue import Outbox
from sammy_agent.daemon.outbox.retry_policy import ResponseInfo, RetryPolicy

FIRST, SECOND = Lane(MESSAGES.name, "w1"), Lane(MESSAGES.name, "w2")
ACCEPTED = ResponseInfo(200, accepted=True)


class Server:
    """Answers every request with `response` and keeps whose it was."""

    def __init__(self) -> None:
        self.response = ACCEPTED
        self.sent: list[str] = []

    def __call__(self, channel: Channel, lane: Lane, body: bytes) -> ResponseInfo:
        self.sent.append(lane.owner)
        return self.response


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(str(tmp_path / "outbox.db"))
    yield outbox
    outbox.close()


def add(outbox: Outbox, lane: Lane, name: str = "m1") -> None:
    outbox.add(lane, [NewRow(name, '{"x":1}', Priority.NORMAL, "s")])


def senders(outbox: Outbox, server: Server, clock: Clock | None = None) -> Dispatcher:
    policy = RetryPolicy(first=100.0, longest=100.0)
    return Dispatcher(outbox, [server, server], policy, clock or FakeClock())


def test_as_many_threads_as_exchanges_and_none_more(outbox: Outbox, server: Server) -> None:
    assert [worker.name for worker in senders(outbox, server).workers] == ["outbox-1", "outbox-2"]


def test_the_first_sender_finds_what_an_earlier_process_left(outbox: Outbox, server: Server) -> None:
    add(outbox, FIRST)
    add(outbox, SECOND)
    first, second = senders(outbox, server).workers
    assert second.run_once() is None, "it was not notified of any"
    assert first.run_once() == 0.0 and second._wake.is_set(), "one lane each"
    assert second.run_once() == 0.0
    assert sorted(server.sent) == ["w1", "w2"] and outbox.totals()["rows"] == 0
    first.run_once()
    first.run_once()
    assert first.run_once() is None, "nothing is due any more"


def test_a_disk_that_cannot_be_read_is_read_again_and_new_rows_are_sent_meanwhile(
    outbox: Outbox, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(outbox, FIRST)
    clock = FakeClock()
    work = senders(outbox, server, clock)
    reads: list[int] = []

    def broken() -> list[Lane]:
        reads.append(1)
        raise sqlite3.OperationalError("disk I/O error")

    good = outbox.lanes
    monkeypatch.setattr(outbox, "lanes", broken)
    assert work.workers[0].run_once() == QUEUE_RETRY_SECONDS
    add(outbox, SECOND)
    for _ in range(3):
        delay = work.workers[0].run_once()
    assert server.sent == ["w2"] and reads == [1], "the disk is not asked at each wake"
    assert delay == QUEUE_RETRY_SECONDS and len(caplog.records) == 1
    monkeypatch.setattr(outbox, "lanes", good)
    clock.advance(QUEUE_RETRY_SECONDS)
    while outbox.totals()["rows"]:
        work.workers[0].run_once()
    assert server.sent == ["w2", "w1"]


def test_a_lane_that_failed_waits_and_retry_now_ends_that(outbox: Outbox, server: Server) -> None:
    work = senders(outbox, server)
    server.response = ResponseInfo(503, message="busy", retry_after=30.0)
    add(outbox, FIRST)
    sender = work.workers[0]
    assert sender.run_once() == 0.0
    delay = sender.run_once()
    assert delay is not None and 29 < delay <= 130
    assert work.snapshot()["trouble"] == {"messages w1": "retry: 503: busy"}
    server.response = ACCEPTED
    work.retry_now()
    assert sender.run_once() == 0.0
    assert server.sent == ["w1", "w1"] and work.snapshot()["trouble"] == {} and outbox.totals()["rows"] == 0
