# SPDX-License-Identifier: Apache-2.0
"""Dispatches the outbox: three sender threads; a lane is served by one thread at a time, which keeps its order.

A workspace whose endpoint hangs costs one thread, and no other workspace its turn.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.backoff import full_jitter
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.outbox.channels import CHANNELS, Channel, Lane
from sammy_agent.daemon.outbox.queue import Outbox, PoisonState
from sammy_agent.daemon.outbox.retry_policy import (
    Classification,
    LaneState,
    NextAction,
    ResponseInfo,
    RetryPolicy,
    classify,
    decide,
)

LOG = logging.getLogger(__name__)
SENDERS = 3
QUEUE_RETRY_SECONDS = 10.0  # when the queue itself cannot be read
Exchange = Callable[[Channel, Lane, bytes], ResponseInfo]


@dataclass
class _ScheduledLane:
    """A lane in memory; `state` is None until what an earlier process knew of it was read."""

    state: LaneState | None = None
    due: float = 0.0
    busy: bool = False
    has_rows: bool = True
    trouble: str = ""


class Scheduler:
    """Decides which lane is next. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[Lane, _ScheduledLane] = {}

    def notify(self, lane: Lane) -> bool:
        """Note that a lane has rows; return whether a sender should be woken."""
        with self._lock:
            scheduled = self._lanes.get(lane)
            if scheduled is None:
                self._lanes[lane] = _ScheduledLane()
                return True
            known, scheduled.has_rows = scheduled.has_rows, True
            return not known and not scheduled.busy

    def has_more(self) -> bool:
        """Tell whether a lane waits that no sender serves."""
        with self._lock:
            return any(lane.has_rows and not lane.busy for lane in self._lanes.values())

    def retry_now(self) -> None:
        """Make every lane due: contact is back, or a token is new."""
        with self._lock:
            for lane in self._lanes.values():
                lane.due = 0.0

    def claim(self, now: float) -> tuple[Lane | None, _ScheduledLane | None, float | None]:
        """Return the lane that has waited longest and is due, else the seconds until one is, None for never."""
        with self._lock:
            free = [(one.due, lane) for lane, one in self._lanes.items() if one.has_rows and not one.busy]
            if not free:
                return None, None, None
            due, lane = min(free)
            if due > now:
                return None, None, due - now
            scheduled = self._lanes[lane]
            scheduled.busy, scheduled.has_rows = True, False
            return lane, scheduled, None

    def release(self, lane: _ScheduledLane, due: float, *, empty: bool) -> None:
        """Give a lane back; an empty one waits until it is notified."""
        with self._lock:
            lane.busy, lane.due = False, due
            lane.has_rows = lane.has_rows or not empty

    def snapshot(self) -> dict[str, str]:
        """Return the lanes in trouble and what it is."""
        with self._lock:
            return {f"{lane.channel} {lane.owner}": one.trouble for lane, one in self._lanes.items() if one.trouble}


class Sender(Worker):
    """One of the threads that send."""

    def __init__(
        self,
        number: int,
        outbox: Outbox,
        scheduler: Scheduler,
        exchange: Exchange,
        *,
        policy: RetryPolicy,
        clock: Clock,
    ) -> None:
        super().__init__(f"outbox-{number}")
        self._outbox, self._scheduler, self._exchange = outbox, scheduler, exchange
        self._policy, self._clock = policy, clock
        # called when there is more than this thread can do
        self.on_more: Callable[[], None] = lambda: None

    def run_once(self) -> float | None:
        """Send one request of the lane that has waited longest."""
        lane, scheduled, delay = self._scheduler.claim(self._clock.monotonic())
        if lane is None or scheduled is None:
            return delay
        if self._scheduler.has_more():
            self.on_more()
        wait, empty = QUEUE_RETRY_SECONDS, False
        try:
            wait, empty = self._send(lane, scheduled)
        except (sqlite3.Error, OSError, AgentError) as error:
            # acknowledged rows that could not be removed are sent again: the server knows their ids
            LOG.warning("the outbox cannot be used: %s", error)
        finally:
            self._scheduler.release(scheduled, self._clock.monotonic() + wait, empty=empty)
        return 0.0

    def _send(self, lane: Lane, scheduled: _ScheduledLane) -> tuple[float, bool]:
        """Return the seconds until the lane is due again, and whether it is empty."""
        channel, before = CHANNELS[lane.channel], scheduled.state
        if before is None:
            known = self._outbox.poison_state(lane)
            before = scheduled.state = LaneState(known.suspect_rows, known.refusals, known.consecutive_rejections)
            if (wait := min(known.due - self._clock.wall(), self._policy.confirm_longest)) > 0:
                return wait, False
        rows = self._outbox.head(lane, before.batch_limit(channel.most_rows))
        if not rows:
            return 0.0, True
        response = self._exchange(channel, lane, channel.encode(rows))
        classification = classify(response, optional=channel.optional)
        action = decide(before, classification, len(rows), response, self._policy)
        wait = action.at_least + full_jitter(action.backoff_limit)
        if action.delivered:
            self._outbox.remove(rows)
        if action.dead_letters:
            self._outbox.dead_letter(lane, rows, response.summary)
        scheduled.state = action.state
        if action.state.poison != before.poison:
            self._outbox.save_poison_state(lane, PoisonState(*action.state.poison, self._clock.wall() + wait))
        self._log_change(lane, scheduled, classification, response, action)
        return wait, False

    def _log_change(
        self,
        lane: Lane,
        scheduled: _ScheduledLane,
        classification: Classification,
        response: ResponseInfo,
        action: NextAction,
    ) -> None:
        """Log each kind of trouble once, and that it is over."""
        before = scheduled.trouble
        if classification in (Classification.DELIVERED, Classification.FULL) or action.dead_letters:
            scheduled.trouble = ""
            if before:
                LOG.info("%s of %s: delivered again", lane.channel, lane.owner)
            return
        scheduled.trouble = f"{classification.value}: {response.summary}"
        if not before and classification is Classification.UNSUPPORTED:
            LOG.info("%s of %s: this control plane does not support the endpoint", lane.channel, lane.owner)
        elif before.split(":")[0] != classification.value and classification in (
            Classification.HOLD,
            Classification.RETRY,
        ):
            LOG.warning("%s of %s: not delivered, everything is kept (%s)", lane.channel, lane.owner, response.summary)


class FirstSender(Sender):
    """The sender that also finds the lanes that an earlier process left; a disk that fails is read again later."""

    def __init__(
        self,
        number: int,
        outbox: Outbox,
        scheduler: Scheduler,
        exchange: Exchange,
        *,
        policy: RetryPolicy,
        clock: Clock,
    ) -> None:
        super().__init__(number, outbox, scheduler, exchange, policy=policy, clock=clock)
        self._lanes_due: float | None = 0.0  # when the lanes are to be read, None when they are known

    def run_once(self) -> float | None:
        """Find the lanes, once, and send."""
        self._find_lanes()
        delay = super().run_once()
        if self._lanes_due is None:
            return delay
        wait = max(0.0, self._lanes_due - self._clock.monotonic())
        return wait if delay is None else min(wait, delay)

    def _find_lanes(self) -> None:
        if self._lanes_due is None or self._clock.monotonic() < self._lanes_due:
            return
        try:
            lanes = self._outbox.lanes()
        except (sqlite3.Error, OSError, AgentError) as error:
            LOG.warning("the outbox cannot be read: %s", error)
            self._lanes_due = self._clock.monotonic() + QUEUE_RETRY_SECONDS
            return
        for lane in lanes:
            self._scheduler.notify(lane)
        self._lanes_due = None


class Dispatcher:
    """The senders, connected to the queue: rows that are added wake one."""

    def __init__(
        self,
        outbox: Outbox,
        exchanges: Sequence[Exchange],
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.outbox, self.scheduler = outbox, Scheduler()
        self.workers: tuple[Sender, ...] = tuple(
            (FirstSender if number == 1 else Sender)(
                number, outbox, self.scheduler, exchange, policy=policy, clock=clock
            )
            for number, exchange in enumerate(exchanges, 1)
        )
        for worker, other in zip(self.workers, self.workers[1:] + self.workers[:1], strict=True):
            worker.on_more = other.wake
        outbox.rows_added.connect(self.notify)

    def notify(self, lane: Lane) -> None:
        """Have a lane served that has rows."""
        if self.scheduler.notify(lane):
            for worker in self.workers:
                worker.wake()

    def retry_now(self) -> None:
        """End the delays of all lanes."""
        self.scheduler.retry_now()
        for worker in self.workers:
            worker.wake()

    def snapshot(self) -> dict[str, Any]:
        """Return the `outbox` part of the socket's status."""
        try:
            totals: dict[str, Any] = dict(self.outbox.totals())
        except (sqlite3.Error, OSError, AgentError) as error:
            totals = {"problem": str(error)}
        return {**totals, "damage": self.outbox.corruption, "trouble": self.scheduler.snapshot()}
