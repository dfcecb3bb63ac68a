# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sammy_agent.base.runtime.observer import Signal


def test_listeners_are_called_in_the_order_they_were_connected() -> None:
    signal: Signal[int] = Signal()
    signal.emit(0)  # nobody listens
    heard: list[tuple[str, int]] = []
    signal.connect(lambda value: heard.append(("first", value)))
    signal.connect(lambda value: heard.append(("second", value)))
    signal.emit(1)
    signal.emit(2)
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_a_listener_that_fails_costs_nobody_else_anything(caplog: pytest.LogCaptureFixture) -> None:
    signal: Signal[str] = Signal()
    heard: list[str] = []

    def broken(value: str) -> None:
        raise ValueError(value)

    signal.connect(broken)
    signal.connect(heard.append)
    signal.emit("news")
    assert heard == ["news"]
    (record,) = caplog.records
    assert "broken" in record.getMessage() and record.exc_info, "with its name and a traceback"


def test_a_listener_may_connect_another_one() -> None:
    signal: Signal[int] = Signal()
    heard: list[int] = []
    signal.connect(lambda value: signal.connect(heard.append))
    signal.emit(1)
    assert heard == []
    signal.emit(2)
    assert heard == [2]
