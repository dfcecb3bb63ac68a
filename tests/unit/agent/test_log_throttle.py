# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest

from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.log_throttle import MAX_KEYS, LogThrottle, ThrottleFilter, also_suppressed


def test_one_message_per_interval_passes_and_says_how_many_did_not() -> None:
    clock = FakeClock()
    throttle = LogThrottle(10.0, clock)
    assert throttle.allow() == 0
    assert [throttle.allow() for _ in range(3)] == [None, None, None]
    clock.advance(9.9)
    assert throttle.allow() is None
    clock.advance(0.1)
    assert throttle.allow() == 4
    clock.advance(10.0)
    assert throttle.allow() == 0, "none was left out since"


def test_keys_are_counted_apart_and_may_be_reset() -> None:
    throttle = LogThrottle(10.0, FakeClock())
    assert throttle.allow("a") == 0 and throttle.allow("b") == 0 and throttle.allow("a") is None
    throttle.reset("a")
    throttle.reset("never seen")
    assert throttle.allow("a") == 0 and throttle.allow("b") is None


def test_a_stranger_who_makes_keys_makes_no_memory() -> None:
    throttle = LogThrottle(10.0, FakeClock())
    for number in range(10 * MAX_KEYS):
        throttle.allow(str(number))
    assert len(throttle._last) <= MAX_KEYS


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, " (1 similar messages suppressed)")])
def test_what_a_message_ends_with(count: int, text: str) -> None:
    assert also_suppressed(count) == text


def test_a_librarys_equal_messages_are_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock, log = FakeClock(), logging.getLogger("test-of-throttle")
    throttle = ThrottleFilter(60.0, clock)
    log.addFilter(throttle)
    try:
        with caplog.at_level("INFO", log.name):
            for number in range(200):
                log.warning("malformed request from %s: %d%%", "192.0.2.1", number)
            log.error("malformed request from %s: %d%%", "192.0.2.1", 7)
            try:
                raise ValueError("x")
            except ValueError:
                for _ in range(2):
                    log.exception("a bug")
            clock.advance(60.0)
            log.warning("malformed request from %s: %d%%", "192.0.2.2", 200)
    finally:
        log.removeFilter(throttle)
    assert [record.getMessage() for record in caplog.records] == [
        "malformed request from 192.0.2.1: 0%",
        "malformed request from 192.0.2.1: 7%",
        "a bug",
        "a bug",
        "malformed request from 192.0.2.2: 200% (199 similar messages suppressed)",
    ]
