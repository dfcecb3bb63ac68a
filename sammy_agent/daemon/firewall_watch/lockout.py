# SPDX-License-Identifier: Apache-2.0
"""Do our own rules keep the control plane out? The decision, as a pure function of what is known.

Silence alone says little: a control plane may be idle, down, or never come in at all, and then nothing is done. The
rules are suspected only when it came in regularly, the rules changed while it did, it has been away since for several
times its longest silence, and what we send still arrives. Then the agent's port is opened for a while; only if it
comes in again then are the rules given up.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from sammy_agent.daemon.firewall_watch.inbound_contact import ContactStats

LEAST_VISITS = 5
LONGEST_RHYTHM = 300.0  # seconds: one that comes more seldom tells too little by staying away
LEAST_PATIENCE, TIMES = 60.0, 3.0  # gone: longer than this, and so many times the longest silence
LEAST_TRIAL, TRIAL_TIMES = 30.0, 2.0
LOOK_AGAIN, LOOK_IN_TRIAL = 30.0, 0.5  # seconds


class Action(Enum):
    """What to do now."""

    WAIT = "wait"
    MARK_GOOD = "the rules let it in: keep them as good ones"
    OPEN_FOR_TRIAL = "open the port for the trial"
    RESTORE = "end the trial: it did not come in, so the rules are not what keeps it out"
    ROLL_BACK = "give the rules up: it came in as soon as they were lifted"


class RulesState(NamedTuple):
    """The rules since their last change. Times are of the monotonic clock.

    :param changed: when they changed.
    :param lifted: when the trial began, if there is one.
    :param resolved: whether all is known about these rules.
    """

    changed: float
    lifted: float | None = None
    resolved: bool = False


def decide(watch: RulesState, rhythm: ContactStats, outbound: bool, now: float) -> tuple[Action, float]:
    """Return what to do, and in how many seconds to ask again.

    :param outbound: whether what we send to the control plane arrives.
    """
    last = rhythm.last
    if watch.lifted is not None:
        end = watch.lifted + trial_seconds(rhythm)
        if last is not None and last > watch.lifted:
            return Action.ROLL_BACK, 0.0
        return (Action.RESTORE, 0.0) if now >= end else (Action.WAIT, LOOK_IN_TRIAL)
    if watch.resolved:
        return Action.WAIT, LOOK_AGAIN
    if last is not None and last > watch.changed:
        return Action.MARK_GOOD, 0.0
    regular = rhythm.visits >= LEAST_VISITS and rhythm.longest_silence <= LONGEST_RHYTHM
    if last is None or not regular or watch.changed - last > patience(rhythm) or not outbound:
        return Action.WAIT, LOOK_AGAIN  # never regular, gone before the rules changed, or the network's fault
    left = watch.changed + patience(rhythm) - now
    return (Action.WAIT, min(left, LOOK_AGAIN)) if left > 0 else (Action.OPEN_FOR_TRIAL, 0.0)


def patience(rhythm: ContactStats) -> float:
    """Return how many seconds it must be away to be called gone."""
    return max(LEAST_PATIENCE, TIMES * rhythm.longest_silence)


def trial_seconds(rhythm: ContactStats) -> float:
    """Return how long the port is opened: long enough for one that comes in by its rhythm."""
    return max(LEAST_TRIAL, TRIAL_TIMES * rhythm.longest_silence)
