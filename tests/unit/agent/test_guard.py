# SPDX-License-Identifier: Apache-2.0
"""When the guard mends, and that two programs which undo each other do not make a machine busy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sammy_agent import guard
from sammy_agent.guard import Guard


class Firewall:
    """The firewall's program: `broken` says how often it finds the rules changed."""

    def __init__(self, broken: int = 0, *, ok: bool = True) -> None:
        self.asked, self._broken, self._ok = 0, broken, ok

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if not self._ok:
            return {"ok": False, "error": "nft is not there"}
        return {"ok": True, "repaired": ["table inet sammy is not loaded"] if self.asked <= self._broken else []}


@pytest.fixture
def kept(tmp_path: Path) -> str:
    (tmp_path / "applied.nft").write_text("rules")
    return f"{tmp_path}/*.[nr]*"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    return now


def make(firewall: Firewall, kept: str) -> Guard:
    made = Guard(firewall, kept)
    made.heard()
    return made


def test_without_news_nothing_is_run(kept: str) -> None:
    firewall = Firewall()
    assert Guard(firewall, kept).turn() is None
    assert firewall.asked == 0


def test_a_flush_is_mended_once_and_our_own_change_is_looked_at_later(kept: str, clock: list[float]) -> None:
    firewall = Firewall(broken=1)
    made = make(firewall, kept)
    assert made.turn() is None
    made.heard()  # the kernel speaks of the repair itself
    wait = made.turn()
    assert wait is not None and wait > 0
    assert (firewall.asked, made.repairs) == (1, 1)
    clock[0] += wait + 0.1
    assert made.turn() is None
    assert (firewall.asked, made.repairs) == (2, 1)


def test_a_fight_gets_slower_and_is_told_once(kept: str, clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    firewall = Firewall(broken=10_000)
    made = make(firewall, kept)
    for _ in range(500):  # ten minutes less a second, another program always at it
        made.turn()
        made.heard()
        clock[0] += 1.198
    assert firewall.asked < 60
    assert len([record for record in caplog.records if "another program" in record.message]) == 1


def test_what_could_not_be_checked_is_asked_again(kept: str, clock: list[float]) -> None:
    firewall = Firewall(ok=False)
    made = make(firewall, kept)
    wait = made.turn()
    assert wait is not None
    clock[0] += wait + 0.1
    made.turn()
    assert firewall.asked == 2


def test_a_machine_without_our_rules_is_left_alone(tmp_path: Path) -> None:
    firewall = Firewall(broken=1)
    assert make(firewall, f"{tmp_path}/*.[nr]*").turn() is None
    assert firewall.asked == 0
