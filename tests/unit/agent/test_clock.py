# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

import pytest

from sammy_agent.base.runtime.clock import SYSTEM_CLOCK
from sammy_agent.base.runtime.fake_clock import FakeClock


def test_the_system_clock_is_the_kernels() -> None:
    assert abs(SYSTEM_CLOCK.wall() - time.time()) < 1
    assert abs(SYSTEM_CLOCK.monotonic() - time.monotonic()) < 1
    assert SYSTEM_CLOCK.boottime() >= SYSTEM_CLOCK.monotonic() - 1
    before = time.monotonic()
    SYSTEM_CLOCK.sleep(0.01)
    assert not SYSTEM_CLOCK.wait(threading.Event(), 0.01)
    assert time.monotonic() - before >= 0.02
    event = threading.Event()
    event.set()
    assert SYSTEM_CLOCK.wait(event)


def test_a_fake_clock_runs_when_it_is_told_to() -> None:
    clock = FakeClock(monotonic=10.0, wall=100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.wall(), clock.boottime()) == (12.5, 102.5, 12.5)
    clock.set_wall(50.0)
    assert (clock.monotonic(), clock.wall(), clock.boottime()) == (12.5, 50.0, 12.5)
    clock.suspend(3600.0)
    assert (clock.monotonic(), clock.wall(), clock.boottime()) == (12.5, 3650.0, 3612.5)


def test_waiting_by_a_fake_clock_lets_the_time_pass_at_once() -> None:
    clock, event = FakeClock(monotonic=0.0), threading.Event()
    clock.sleep(5.0)
    assert not clock.wait(event, 60.0) and clock.monotonic() == 65.0
    event.set()
    assert clock.wait(event, 60.0) and clock.wait(event) and clock.monotonic() == 65.0
    assert clock.waits == [5.0, 60.0, 60.0, None]


@pytest.mark.parametrize("by_event", [True, False])
def test_a_thread_waits_by_a_fake_clock_until_another_advances_it(by_event: bool) -> None:
    clock, event = FakeClock(auto_advance=False), threading.Event()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(clock.wait(event, 60.0)))
    thread.start()
    clock.advance(59.0)
    thread.join(0.05)
    assert thread.is_alive(), "a second is left"
    if by_event:
        event.set()
    else:
        clock.advance(1.0)
    thread.join(5.0)
    assert found == [by_event]
