# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.worker import CRASH_DELAY, Worker


class Scripted(Worker):
    """A task whose runs are given: a delay, or an error; it stops itself after the last one."""

    def __init__(self, script: list[float | Exception | None], clock: FakeClock) -> None:
        super().__init__("scripted", clock)
        self.script, self.busy = script, 0.0

    def run_once(self) -> float | None:
        self._clock.sleep(3.0)
        self.busy = self.busy_seconds()
        answer = self.script.pop(0)
        if not self.script:
            self.stop()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_runs_when_it_said_it_would_and_slowly_after_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    task = Scripted([5.0, ValueError("broken"), 0.0, 1.0], clock)
    task.run()
    assert clock.waits == [3.0, 5.0, 3.0, CRASH_DELAY, 3.0, 0.0, 3.0, 1.0]
    assert task.busy == 3.0 and task.busy_seconds() == 0.0
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_news_during_a_run_makes_another_one_at_once() -> None:
    clock = FakeClock()
    task = Scripted([60.0, 60.0], clock)
    task.wake()  # before the first run: that one is the answer to it
    run_once = task.run_once
    woken: list[bool] = []

    def woken_within() -> float | None:
        if not woken:
            woken.append(True)
            task.wake()
        return run_once()

    task.run_once = woken_within  # type: ignore[method-assign]
    before = clock.monotonic()
    task.run()
    assert clock.monotonic() - before == 6.0, "two runs of 3 s, and no pause"


def test_a_thread_without_a_next_run_waits_until_woken_or_stopped() -> None:
    clock = FakeClock(auto_advance=False)
    ran = threading.Semaphore(0)

    class Waiting(Worker):
        def run_once(self) -> None:
            ran.release()

    task = Waiting("waiting", clock)
    task.start()
    assert ran.acquire(timeout=5)
    task.wake()
    assert ran.acquire(timeout=5)
    task.stop()
    task.join(5)
    assert not task.is_alive()
