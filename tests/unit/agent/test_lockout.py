# SPDX-License-Identifier: Apache-2.0
"""When our own rules are suspected of keeping the control plane out: each sign that must be there, one by one."""

from __future__ import annotations

import pytest

from sammy_agent.daemon.firewall_watch import lockout
from sammy_agent.daemon.firewall_watch.inbound_contact import ContactStats
from sammy_agent.daemon.firewall_watch.lockout import Action, RulesState, decide

CHANGED = 1000.0
RHYTHM = ContactStats(9, CHANGED - 5, 30.0)  # so it is gone after 90 s


def at(
    seconds: float, *, watch: RulesState | None = None, stats: ContactStats = RHYTHM, outbound: bool = True
) -> Action:
    act, again = decide(watch or RulesState(CHANGED), stats, outbound, CHANGED + seconds)
    assert 0 <= again <= lockout.DECISION_INTERVAL
    return act


def test_it_is_waited_for_and_then_the_port_is_opened() -> None:
    assert [at(seconds) for seconds in (0, 60, 89, 91, 500)] == [Action.WAIT] * 3 + [Action.OPEN_FOR_TRIAL] * 2


@pytest.mark.parametrize(
    "stats",
    [
        ContactStats(),
        ContactStats(lockout.MIN_VISITS - 1, CHANGED - 5, 30.0),
        ContactStats(9, CHANGED - 5, lockout.MAX_SILENCE + 1),
        ContactStats(9, CHANGED - 91, 30.0),
    ],
    ids=["never came", "came seldom", "no rhythm", "gone before the rules changed"],
)
def test_without_regular_visits_before_nothing_is_done(stats: ContactStats) -> None:
    assert at(10_000, stats=stats) is Action.WAIT


def test_a_network_that_is_down_is_not_the_rules_fault() -> None:
    assert at(10_000, outbound=False) is Action.WAIT


def test_one_visit_since_the_change_proves_the_rules() -> None:
    assert at(10_000, stats=ContactStats(10, CHANGED + 1, 30.0)) is Action.MARK_GOOD
    assert at(10_000, stats=ContactStats(1, CHANGED + 1, 0.0)) is Action.MARK_GOOD


def test_what_is_settled_rests() -> None:
    assert at(10_000, watch=RulesState(CHANGED, resolved=True)) is Action.WAIT


def test_the_trial_ends_with_a_visit_or_with_its_time() -> None:
    lifted = RulesState(CHANGED, lifted=CHANGED + 100)
    assert [at(seconds, watch=lifted) for seconds in (101, 159)] == [Action.WAIT] * 2
    assert at(161, watch=lifted) is Action.RESTORE
    assert at(110, watch=lifted, stats=ContactStats(10, CHANGED + 109, 114.0)) is Action.ROLL_BACK
    assert at(110, watch=lifted, outbound=False) is Action.WAIT  # ends by time all the same
    assert at(161, watch=lifted, outbound=False) is Action.RESTORE
