# SPDX-License-Identifier: Apache-2.0
"""When our own rules are suspected of keeping the control plane out: each sign that must be there, one by one."""

from __future__ import annotations

import pytest

from sammy_agent.daemon.firewall_watch import lockout
from sammy_agent.daemon.firewall_watch.inbound_contact import Rhythm
from sammy_agent.daemon.firewall_watch.lockout import Act, Watch, judge

CHANGED = 1000.0
RHYTHM = Rhythm(9, CHANGED - 5, 30.0)  # so it is gone after 90 s


def at(seconds: float, *, watch: Watch | None = None, rhythm: Rhythm = RHYTHM, outbound: bool = True) -> Act:
    act, again = judge(watch or Watch(CHANGED), rhythm, outbound, CHANGED + seconds)
    assert 0 <= again <= lockout.LOOK_AGAIN
    return act


def test_it_is_waited_for_and_then_the_port_is_opened() -> None:
    assert [at(seconds) for seconds in (0, 60, 89, 91, 500)] == [Act.WAIT] * 3 + [Act.LIFT] * 2


@pytest.mark.parametrize(
    "rhythm",
    [
        Rhythm(),
        Rhythm(lockout.LEAST_VISITS - 1, CHANGED - 5, 30.0),
        Rhythm(9, CHANGED - 5, lockout.LONGEST_RHYTHM + 1),
        Rhythm(9, CHANGED - 91, 30.0),
    ],
    ids=["never came", "came seldom", "no rhythm", "gone before the rules changed"],
)
def test_without_regular_visits_before_nothing_is_done(rhythm: Rhythm) -> None:
    assert at(10_000, rhythm=rhythm) is Act.WAIT


def test_a_network_that_is_down_is_not_the_rules_fault() -> None:
    assert at(10_000, outbound=False) is Act.WAIT


def test_one_visit_since_the_change_proves_the_rules() -> None:
    assert at(10_000, rhythm=Rhythm(10, CHANGED + 1, 30.0)) is Act.VOUCH
    assert at(10_000, rhythm=Rhythm(1, CHANGED + 1, 0.0)) is Act.VOUCH


def test_what_is_settled_rests() -> None:
    assert at(10_000, watch=Watch(CHANGED, settled=True)) is Act.WAIT


def test_the_trial_ends_with_a_visit_or_with_its_time() -> None:
    lifted = Watch(CHANGED, lifted=CHANGED + 100)
    assert [at(seconds, watch=lifted) for seconds in (101, 159)] == [Act.WAIT] * 2
    assert at(161, watch=lifted) is Act.PUT_BACK
    assert at(110, watch=lifted, rhythm=Rhythm(10, CHANGED + 109, 114.0)) is Act.ROLL_BACK
    assert at(110, watch=lifted, outbound=False) is Act.WAIT  # ends by time all the same
    assert at(161, watch=lifted, outbound=False) is Act.PUT_BACK
