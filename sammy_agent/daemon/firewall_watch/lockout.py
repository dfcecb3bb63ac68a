# SPDX-License-Identifier: Apache-2.0
"""Do our own rules lock the control plane out? The decision, as a pure function of what is known.

Silence alone says little: a control plane may be idle, down, or never connect at all, and then nothing is done. The
rules are suspected only when it connected regularly, the rules changed while it did, it has been silent since for
several times its longest silence, and it still answers our requests. Then the agent's port is opened for a trial; only
if the control plane connects during it are the rules rolled back.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from sammy_agent.daemon.firewall_watch.inbound_contact import ContactStats

MIN_VISITS = 5
MAX_SILENCE = 300.0  # seconds: the absence of one that connects more rarely says too little
MIN_ABSENCE, ABSENCE_FACTOR = 60.0, 3.0  # gone: silent for this long, and for so many times the longest silence
MIN_TRIAL, TRIAL_FACTOR = 30.0, 2.0
DECISION_INTERVAL, TRIAL_INTERVAL = 30.0, 0.5  # seconds


class Action(Enum):
    """What to do next."""

    WAIT = "wait"
    MARK_GOOD = "the rules let it connect: mark them as known good"
    OPEN_FOR_TRIAL = "open the port for the trial"
    RESTORE = "end the trial: it did not connect, so the rules are not the cause"
    ROLL_BACK = "roll the rules back: it connected as soon as the port was open"


class RulesState(NamedTuple):
    """The rules since their last change. Times are of the monotonic clock.

    :param changed: when they changed.
    :param lifted: when the trial began, if there is one.
    :param resolved: whether these rules need no further decision.
    """

    changed: float
    lifted: float | None = None
    resolved: bool = False


def decide(state: RulesState, stats: ContactStats, outbound: bool, now: float) -> tuple[Action, float]:
    """Return what to do, and in how many seconds to decide again.

    :param outbound: whether the control plane answers our requests.
    """
    last = stats.last
    if state.lifted is not None:
        end = state.lifted + trial_seconds(stats)
        if last is not None and last > state.lifted:
            return Action.ROLL_BACK, 0.0
        return (Action.RESTORE, 0.0) if now >= end else (Action.WAIT, TRIAL_INTERVAL)
    if state.resolved:
        return Action.WAIT, DECISION_INTERVAL
    if last is not None and last > state.changed:
        return Action.MARK_GOOD, 0.0
    regular = stats.visits >= MIN_VISITS and stats.longest_silence <= MAX_SILENCE
    if last is None or not regular or state.changed - last > patience(stats) or not outbound:
        return (
            Action.WAIT,
            DECISION_INTERVAL,
        )  # never regular, gone before the rules changed, or the network's fault
    left = state.changed + patience(stats) - now
    return (Action.WAIT, min(left, DECISION_INTERVAL)) if left > 0 else (Action.OPEN_FOR_TRIAL, 0.0)


def patience(stats: ContactStats) -> float:
    """Return after how many seconds of silence it counts as gone."""
    return max(MIN_ABSENCE, ABSENCE_FACTOR * stats.longest_silence)


def trial_seconds(stats: ContactStats) -> float:
    """Return how long the port is opened: long enough for one that connects as regularly as before."""
    return max(MIN_TRIAL, TRIAL_FACTOR * stats.longest_silence)
