# SPDX-License-Identifier: Apache-2.0
"""The way out: a few threads share the lanes; a lane is in one thread's hand at a time, so its order holds.

One workspace whose door hangs costs one thread and no other workspace its turn.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.outbox.channels import CHANNELS, Channel, Lane
from sammy_agent.daemon.outbox.queue import Outbox, Suspicion
from sammy_agent.daemon.outbox.retry_policy import Pace, Progress, ResponseInfo, Step, Verdict, decide, drawn, judge

LOG = logging.getLogger(__name__)
THREADS = 3
AFTER_TROUBLE = 10.0  # seconds, when the queue itself cannot be read
Exchange = Callable[[Channel, Lane, bytes], ResponseInfo]


@dataclass
class _State:
    """A lane in memory; `progress` is None until what an earlier process knew of it was read."""

    progress: Progress | None = None
    due: float = 0.0
    busy: bool = False
    news: bool = True
    trouble: str = ""


class Roster:
    """Which lane is next. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[Lane, _State] = {}

    def heard(self, lane: Lane) -> bool:
        """Take the news that a lane has rows; return whether a thread should look."""
        with self._lock:
            state = self._states.get(lane)
            if state is None:
                self._states[lane] = _State()
                return True
            known, state.news = state.news, True
            return not known and not state.busy

    def has_more(self) -> bool:
        """Tell whether a lane waits that is in nobody's hand."""
        with self._lock:
            return any(state.news and not state.busy for state in self._states.values())

    def hurry(self) -> None:
        """Forget all pauses: contact is back, or a token is new."""
        with self._lock:
            for state in self._states.values():
                state.due = 0.0

    def claim(self, now: float) -> tuple[Lane | None, _State | None, float | None]:
        """Return the lane that has waited longest and is due, else the seconds until one is, None for never."""
        with self._lock:
            free = [(state.due, lane) for lane, state in self._states.items() if state.news and not state.busy]
            if not free:
                return None, None, None
            due, lane = min(free)
            if due > now:
                return None, None, due - now
            state = self._states[lane]
            state.busy, state.news = True, False
            return lane, state, None

    def release(self, state: _State, due: float, *, empty: bool) -> None:
        """Give a lane back; an empty one waits for news."""
        with self._lock:
            state.busy, state.due = False, due
            state.news = state.news or not empty

    def snapshot(self) -> dict[str, str]:
        """Return the lanes in trouble and what it is."""
        with self._lock:
            return {f"{lane.channel} {lane.owner}": s.trouble for lane, s in self._states.items() if s.trouble}


class Drain(Worker):
    """One of the threads that send."""

    def __init__(self, number: int, outbox: Outbox, roster: Roster, exchange: Exchange, pace: Pace) -> None:
        super().__init__(f"outbox-{number}")
        self._outbox, self._roster, self._exchange, self._pace = outbox, roster, exchange, pace
        # called when there is more than this thread can do
        self.on_more: Callable[[], None] = lambda: None

    def run_once(self) -> float | None:
        """Send one request of the lane that has waited longest."""
        lane, state, pause = self._roster.claim(time.monotonic())
        if lane is None or state is None:
            return pause
        if self._roster.has_more():
            self.on_more()
        wait, empty = AFTER_TROUBLE, False
        try:
            wait, empty = self._send(lane, state)
        except (sqlite3.Error, OSError, AgentError) as error:
            # acknowledged rows that could not be removed are sent again: the server knows their ids
            LOG.warning("the outbox cannot be used: %s", error)
        finally:
            self._roster.release(state, time.monotonic() + wait, empty=empty)
        return 0.0

    def _send(self, lane: Lane, state: _State) -> tuple[float, bool]:
        """Return the seconds until the lane's next turn, and whether it is empty."""
        channel, before = CHANNELS[lane.channel], state.progress
        if before is None:
            known = self._outbox.suspicion(lane)
            before = state.progress = Progress(known.suspects, known.refusals, known.streak)
            if (wait := min(known.due - time.time(), self._pace.confirm_longest)) > 0:
                return wait, False
        rows = self._outbox.head(lane, before.most(channel.most_rows))
        if not rows:
            return 0.0, True
        reply = self._exchange(channel, lane, channel.encode(rows))
        verdict = judge(reply, optional=channel.optional)
        step = decide(before, verdict, len(rows), reply, self._pace)
        wait = drawn(step, random.random())
        if step.delivered:
            self._outbox.remove(rows)
        if step.set_aside:
            self._outbox.set_aside(lane, rows, reply.words)
        state.progress = step.progress
        if step.progress.about_rows != before.about_rows:
            self._outbox.suspect(lane, Suspicion(*step.progress.about_rows, time.time() + wait))
        self._tell(lane, state, verdict, reply, step)
        return wait, False

    def _tell(self, lane: Lane, state: _State, verdict: Verdict, reply: ResponseInfo, step: Step) -> None:
        """Say each kind of trouble once, and that it is over."""
        before = state.trouble
        if verdict in (Verdict.DELIVERED, Verdict.FULL) or step.set_aside:
            state.trouble = ""
            if before:
                LOG.info("%s of %s: delivered again", lane.channel, lane.owner)
            return
        state.trouble = f"{verdict.value}: {reply.words}"
        if not before and verdict is Verdict.UNSUPPORTED:
            LOG.info("%s of %s: this control plane has no such door", lane.channel, lane.owner)
        elif before.split(":")[0] != verdict.value and verdict in (Verdict.HOLD, Verdict.RETRY):
            LOG.warning("%s of %s: everything is kept (%s)", lane.channel, lane.owner, reply.words)


class Drains:
    """The threads, wired to the queue: news of a lane wakes one."""

    def __init__(
        self,
        outbox: Outbox,
        exchanges: Sequence[Exchange],
        pace: Pace = Pace(),  # noqa: B008  (frozen)
    ) -> None:
        self.outbox, self.roster = outbox, Roster()
        self.workers = tuple(
            Drain(number, outbox, self.roster, exchange, pace) for number, exchange in enumerate(exchanges, 1)
        )
        for worker, other in zip(self.workers, self.workers[1:] + self.workers[:1], strict=True):
            worker.on_more = other.wake
        self._known = _Found(outbox, self)
        outbox.on_added = self.heard

    def all_workers(self) -> tuple[Worker, ...]:
        """Return the threads to start: those that send, and the one that finds what an earlier process left."""
        return (*self.workers, self._known)

    def heard(self, lane: Lane) -> None:
        """Let a lane with rows be served."""
        if self.roster.heard(lane):
            for worker in self.workers:
                worker.wake()

    def hurry(self) -> None:
        """Let no lane sit out its pause."""
        self.roster.hurry()
        for worker in self.workers:
            worker.wake()

    def snapshot(self) -> dict[str, Any]:
        """Return the `outbox` part of the socket's status."""
        try:
            totals: dict[str, Any] = dict(self.outbox.totals())
        except (sqlite3.Error, OSError, AgentError) as error:
            totals = {"problem": str(error)}
        return {**totals, "damage": self.outbox.corruption, "trouble": self.roster.snapshot()}


class _Found(Worker):
    """Finds the lanes that an earlier process left; a disk that cannot be read now is asked again."""

    def __init__(self, outbox: Outbox, drains: Drains) -> None:
        super().__init__("outbox-lanes")
        self._outbox, self._drains = outbox, drains

    def run_once(self) -> float | None:
        """Look once."""
        try:
            lanes = self._outbox.lanes()
        except (sqlite3.Error, OSError, AgentError) as error:
            LOG.warning("the outbox cannot be read: %s", error)
            return AFTER_TROUBLE
        for lane in lanes:
            self._drains.heard(lane)
        return None
