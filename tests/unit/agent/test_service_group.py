# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import threading

import pytest

from sammy_agent.base.errors import Code, StoreUnusable
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.daemon.service_group import LONGEST_RETRY, Hooks, ServiceGroup


class Lab:
    """Three services and what was done with them; `broken` says what a start of them raises."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto_advance=False)
        self.done: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.group = ServiceGroup([self.service(name) for name in ("a", "b", "c")], self.clock)

    def service(self, name: str) -> Hooks:
        def start() -> None:
            self.done.append(f"start {name}")
            if name in self.broken:
                raise self.broken[name]

        return Hooks(name, start, lambda: self.done.append(f"stop {name}"))


def test_services_are_started_in_their_order_and_stopped_in_the_reverse() -> None:
    lab = Lab()
    assert lab.group.start() is None and lab.group.problems() == {}
    lab.group.close()
    assert lab.done == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_one_that_cannot_start_costs_its_own_task_alone_and_is_retried(name: str) -> None:
    lab = Lab()
    lab.broken[name] = OSError(errno.EMFILE, "Too many open files")
    delay = lab.group.start()
    assert delay is not None and 3 < delay < 7
    assert lab.done == ["start a", "start b", "start c"]
    assert [service.name for service in lab.group.started()] == [one for one in "abc" if one != name]
    (problem,) = lab.group.problems().values()
    assert problem.code is Code.SERVICE_NOT_STARTED and "Too many open files" in problem.text and problem.next_step
    assert lab.group.retry() == pytest.approx(delay), "not before it is due"
    lab.clock.advance(delay)
    assert (lab.group.retry() or 0) > delay, "the second pause is longer"
    lab.broken.clear()
    lab.clock.advance(LONGEST_RETRY)
    assert lab.group.retry() is None and lab.group.problems() == {}
    assert lab.done[3:] == [f"start {name}"] * 2, "the others are started once"
    lab.group.close()
    assert lab.done[5:] == ["stop c", "stop b", "stop a"]


def test_what_did_not_start_is_not_stopped_and_what_fails_to_stop_holds_nobody_up() -> None:
    lab = Lab()
    lab.broken["b"] = RuntimeError("can't start new thread")

    def broken() -> None:
        raise ValueError("x")

    group = ServiceGroup([lab.service("a"), lab.service("b"), Hooks("c", stop=broken)], lab.clock)
    group.start()
    group.close()
    group.close()
    assert lab.done == ["start a", "start b", "stop a"]


@pytest.mark.parametrize(
    ("error", "text", "traceback"),
    [
        (OSError(errno.ENOSPC, "No space left", "/var/x"), "b cannot be started: /var/x: No space left", False),
        (RuntimeError("can't start new thread"), "b cannot be started: can't start new thread", False),
        (ZeroDivisionError(), "b cannot be started: ZeroDivisionError", True),
        (StoreUnusable("a later version wrote it", "Install that"), "a later version wrote it", False),
    ],
)
def test_the_reason_is_logged_once_per_change_and_a_bug_with_its_traceback(
    error: Exception, text: str, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab()
    lab.broken["b"] = error
    lab.group.start()
    for _ in range(3):
        lab.clock.advance(2 * LONGEST_RETRY)
        lab.group.retry()
    (problem,) = lab.group.problems().values()
    assert problem.text == text
    (record,) = caplog.records
    assert text in record.getMessage() and bool(record.exc_info) is traceback
    lab.broken["b"] = OSError(errno.EACCES, "Permission denied")
    lab.clock.advance(2 * LONGEST_RETRY)
    lab.group.retry()
    assert len(caplog.records) == 2


def test_a_second_start_is_refused_and_after_the_close_nothing_starts() -> None:
    lab = Lab()
    lab.group.start()
    with pytest.raises(RuntimeError, match="started before"):
        lab.group.start()
    closed = Lab()
    closed.group.close()
    assert closed.group.start() is None and closed.group.retry() is None and closed.done == []


def test_a_close_during_the_start_ends_it() -> None:
    lab, entered, leave = Lab(), threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert leave.wait(10)

    stopped: list[str] = []
    group = ServiceGroup([Hooks("slow", hang, lambda: stopped.append("slow")), lab.service("never")], lab.clock)
    starting = threading.Thread(target=group.start)
    starting.start()
    assert entered.wait(10)
    closing = threading.Thread(target=group.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive(), "it waits for the start that is in progress"
    leave.set()
    closing.join(10)
    starting.join(10)
    group.close()
    assert stopped == ["slow"] and lab.done in ([], ["start never", "stop never"])
