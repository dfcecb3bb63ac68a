# SPDX-License-Identifier: Apache-2.0
"""When the guard mends and when it gives the rules up; two programs that undo each other do not make a machine busy."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sammy_agent.base.events import kinds
from sammy_agent.daemon.firewall_watch import lockout
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.firewall_watch.watchdog import FirewallWatchdog


class Firewall:
    """The firewall's program: `broken` says how often it finds the rules changed."""

    def __init__(self, broken: int = 0, *, ok: bool = True) -> None:
        self.asked, self._broken, self._ok = 0, broken, ok
        self.words: list[tuple[str, ...]] = []
        self.notes: list[str] = []
        self.rolled_back: dict[str, Any] | None = None

    def __call__(self, *words: str) -> dict[str, Any]:
        self.words.append(words)
        if not self._ok:
            return {"ok": False, "error": "nft is not there"}
        if words[0] == "roll-back":
            self.rolled_back = {"why": "it stayed away", "restored": True}
        if words[0] != "repair":
            return {"ok": True, "rolled_back": self.rolled_back, "notes": self.notes}
        self.asked += 1
        repaired = ["table inet sammy is not loaded"] if self.asked <= self._broken else []
        return {"ok": True, "repaired": repaired, "rolled_back": self.rolled_back, "notes": self.notes}


@pytest.fixture
def kept(tmp_path: Path) -> str:
    (tmp_path / "applied.nft").write_text("rules")
    return str(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def make(
    firewall: Firewall, kept: str, inbound: InboundContacts | None = None, outbound: bool = True
) -> FirewallWatchdog:
    return FirewallWatchdog(inbound or InboundContacts(), lambda: outbound, firewall, kept)


def test_it_looks_at_the_start_then_at_news_and_now_and_then(kept: str, clock: list[float]) -> None:
    firewall = Firewall()
    made = make(firewall, kept)
    for asked, seconds in ((1, 0), (1, 30), (1, 800), (2, 100), (2, 100)):
        clock[0] += seconds
        wait = made.run_once()
        assert wait is not None and wait <= lockout.DECISION_INTERVAL
        assert firewall.asked == asked


def test_a_flush_is_mended_once_and_our_own_change_is_looked_at_later(kept: str, clock: list[float]) -> None:
    firewall = Firewall(broken=1)
    made = make(firewall, kept)
    made.run_once()
    made.on_rules_changed()  # the kernel speaks of the repair itself
    wait = made.run_once()
    assert wait is not None and 0 < wait < lockout.DECISION_INTERVAL
    assert (firewall.asked, made.repairs) == (1, 1)
    clock[0] += wait + 0.1
    made.run_once()
    assert (firewall.asked, made.repairs) == (2, 1)


def test_a_fight_gets_slower_and_is_told_once(kept: str, clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    firewall = Firewall(broken=10_000)
    made = make(firewall, kept)
    for _ in range(500):  # ten minutes less a second, another program always at it
        made.run_once()
        made.on_rules_changed()
        clock[0] += 1.198
    assert firewall.asked < 60
    assert len([record for record in caplog.records if "another program" in record.message]) == 1


def test_what_could_not_be_checked_is_asked_again(kept: str, clock: list[float]) -> None:
    firewall = Firewall(ok=False)
    made = make(firewall, kept)
    wait = made.run_once()
    assert wait is not None
    clock[0] += wait + 0.1
    made.run_once()
    assert len(firewall.words) == 2


def test_a_machine_without_our_rules_is_left_alone(tmp_path: Path) -> None:
    firewall = Firewall(broken=1)
    assert make(firewall, str(tmp_path)).run_once() is None
    assert firewall.asked == 0


class Visits:
    """A control plane that comes in every ten seconds, and a guard that takes a turn every half second."""

    def __init__(self, clock: list[float], kept: str, *, outbound: bool = True) -> None:
        self.clock, self.firewall = clock, Firewall()
        self.inbound = InboundContacts(lambda: clock[0])
        self.guard = make(self.firewall, kept, self.inbound, outbound)

    def go(self, seconds: float, *, visits: bool) -> None:
        for half in range(round(seconds * 2)):
            self.clock[0] += 0.5
            if visits and half % 20 == 0:
                self.inbound.record("192.0.2.1")
            self.guard.run_once()

    def did(self) -> list[str]:
        done = [words[0] for words in self.firewall.words if words[0] != "repair"]
        self.firewall.words.clear()
        return done


@pytest.fixture
def visits(clock: list[float], kept: str) -> Visits:
    made = Visits(clock, kept)
    made.go(120, visits=True)
    assert made.did() == ["vouch"]
    return made


def change(kept: str, text: str) -> None:
    Path(kept, "applied.nft").write_text(text)
    os.utime(Path(kept, "applied.nft"), ns=(0, len(text)))


def test_rules_under_which_it_comes_in_are_vouched_for_once(visits: Visits, kept: str) -> None:
    visits.go(300, visits=True)
    assert visits.did() == []
    change(kept, "others")
    visits.go(60, visits=True)
    assert visits.did() == ["vouch"]


def test_rules_that_keep_it_out_are_given_up_when_it_returns_in_the_trial(
    visits: Visits, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(kept, "bad")
    visits.go(55, visits=False)
    assert (visits.did(), visits.guard.problem()) == ([], "")
    visits.go(10, visits=False)
    assert visits.firewall.words[-1] == ("trial", "35")
    assert visits.guard.snapshot()["lifted"] is True
    visits.go(5, visits=False)
    assert visits.did() == ["trial"]
    visits.go(1, visits=True)
    assert visits.did() == ["roll-back"]
    assert "the previous rules are in force: it stayed away" in visits.guard.problem()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    visits.go(300, visits=True)
    assert visits.did() == ["vouch"]


def test_rules_are_put_back_when_it_does_not_return(visits: Visits, kept: str) -> None:
    change(kept, "good")
    visits.go(95, visits=False)
    assert [words[0] for words in visits.firewall.words] == ["trial", "repair"]
    visits.did()
    visits.go(2000, visits=False)
    assert visits.did() == []  # one trial a change
    assert (visits.guard.problem(), visits.guard.repairs) == ("", 0)


def test_what_rests_on_the_disk_is_told_after_a_restart(kept: str, clock: list[float]) -> None:
    firewall = Firewall()
    firewall.rolled_back = {"why": "it stayed away", "restored": False}
    made = make(firewall, kept)
    made.run_once()
    assert "the agent's port is open to all: it stayed away" in made.problem()


@pytest.mark.parametrize("kind", ["never changed", "the network", "never came in", "metadata only"])
def test_nothing_is_lifted_without_all_the_signs(kept: str, clock: list[float], kind: str) -> None:
    visits = Visits(clock, kept, outbound=kind != "the network")
    visits.go(120, visits=kind != "never came in")
    if kind in ("the network", "never came in"):
        change(kept, "others")
    if kind == "metadata only":
        Path(kept, "metadata.nft").write_text("others")
    visits.did()
    visits.go(3000, visits=False)
    assert visits.did() == []


def test_what_an_apply_notes_is_logged_and_in_the_event(
    kept: str, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that might not open packet sockets left every apply of its own untried, and the note of it was lost."""
    events: list[tuple[str, Any]] = []

    def record(kind: kinds.Kind, message: str, *, detail: Any = None, seconds: float | None = None) -> None:
        events.append((kind.type, detail))

    firewall = Firewall(broken=2)
    firewall.notes = ["the rules could not be tried beforehand ([Errno 97] Address family not supported)"]
    watchdog = FirewallWatchdog(InboundContacts(), lambda: True, firewall, kept, record)
    for _ in range(2):
        watchdog.on_rules_changed()
        watchdog.run_once()
        clock[0] += 120
    differences = ["table inet sammy is not loaded"]
    assert events == [("firewall.repaired", {"differences": differences, "notes": firewall.notes})] * 2
    logged = [record.getMessage() for record in caplog.records]
    assert logged.count(f"firewall: {firewall.notes[0]}") == 1, "each note once in ten minutes"
    watchdog._roll_back()
    assert events[-1] == ("firewall.rolled-back", {"notes": firewall.notes})
