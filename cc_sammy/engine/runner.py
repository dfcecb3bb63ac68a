# SPDX-License-Identifier: Apache-2.0
"""Runs the plan: each step in a thread, all telling and all records in the one coordinating thread.

Durations are taken in the step's own thread, right around its work, so that nothing the telling costs is booked on
a step.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cc_sammy.config import Config
from cc_sammy.contract.run_record import AttemptRecord, Outcome, RunRecord, Status, StepRecord
from cc_sammy.engine.agent_notify import tell_network_changed
from cc_sammy.engine.schedule import blocked_by, is_settled, startable
from cc_sammy.errors import SammyError, Stopped
from cc_sammy.host.host import Host
from cc_sammy.host.usage import Usage
from cc_sammy.steps.base import Step

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0  # seconds
LAST_WORDS = 10.0  # seconds that a run which is stopped waits for its steps: they may still put something back


class Observer(Protocol):
    """Who is told; called from the coordinating thread only, except `output`."""

    def started(self, step: StepRecord) -> None:
        """A step begins."""

    def ended(self, step: StepRecord) -> None:
        """A step has its final status."""

    def again(self, step: StepRecord, reason: str, pause: float) -> None:
        """An attempt failed of a cause that may pass; the next begins in so many seconds."""

    def settled(self) -> None:
        """Only steps still run or wait that the node's readiness does not wait for."""

    def output(self, step: str, line: str) -> None:
        """A command of the step printed a line; called from the step's thread."""


@dataclass(frozen=True)
class _Attempt:
    """How one attempt at a step came out."""

    status: Status
    reason: str = ""
    transient: bool = False
    started: float = 0.0
    duration_ms: float = 0.0

    def record(self) -> AttemptRecord:
        """Return it as the step's record keeps it."""
        return AttemptRecord(self.started, self.duration_ms, self.reason)


@dataclass(frozen=True)
class _Ended:
    step: Step
    last: _Attempt
    number: int
    seconds: float
    usage: Usage | None
    results: dict[str, str]


@dataclass(frozen=True)
class _Again:
    step: Step
    last: _Attempt
    number: int
    pause: float


def _perform(step: Step, host: Host, config: Config) -> _Attempt:
    try:
        reason = step.satisfied(host, config)
        if reason is not None:
            return _Attempt(Status.SKIPPED, reason)
        step.run(host, config)
        met = step.achieved(host, config) if step.achieved else step.satisfied(host, config) is not None
    except SammyError as error:
        return _Attempt(Status.FAILED, str(error), error.transient)
    except OSError as error:
        said = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        return _Attempt(Status.FAILED, said)
    except Exception as error:  # a fault of ours must fail its step, not take the boot down with it
        return _Attempt(Status.FAILED, f"internal error, please report it: {type(error).__name__}: {error}")
    if not met:
        return _Attempt(Status.FAILED, "it ran to its end and its goal is not met; see journalctl -t sammy")
    return _Attempt(Status.COMPLETED)


def pause_before(attempt: int) -> float:
    """Return the seconds to wait before an attempt: full jitter, so that a fleet does not come back as one."""
    return random.uniform(0.0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 2)))


class Runner:
    """One run of the steps over a host."""

    def __init__(
        self, steps: Sequence[Step], host: Host, config: Config, record: RunRecord, observer: Observer
    ) -> None:
        self._steps = steps
        self._host, self._config, self._record, self._observer = host, config, record, observer
        self._news: queue.SimpleQueue[_Ended | _Again] = queue.SimpleQueue()
        self._ends = host.boottime() + config.run_deadline
        self._running: dict[str, Step] = {}
        self._settled = False

    def __repr__(self) -> str:
        return f"<Runner {len(self._running)} running, {len(self._steps)} steps>"

    def run(self) -> None:
        """Run all steps to their end; the record holds what came of them.

        :raises BaseException: what stopped the run from outside (cloud-init makes SystemExit of a SIGTERM); no command
            is left then, and the record says so.
        """
        try:
            self._run()
        except BaseException:
            self._stop()
            raise

    def _run(self) -> None:
        while True:
            self._fail_blocked()
            self._start_startable()
            if not self._running:
                return
            if not self._settled and is_settled(self._steps, self._statuses(), self._config):
                self._settled = True
                self._observer.settled()
            self._take(self._news.get())

    def _take(self, news: _Ended | _Again) -> None:
        if isinstance(news, _Ended):
            self._finish(news)
        else:
            record = self._record.step(news.step.name)
            record.attempt = news.number + 1
            record.first = record.first or news.last.record()
            self._observer.again(record, news.last.reason, news.pause)

    def _stop(self) -> None:
        """End what runs, hear how it ended, and say of every other step that it did not come to it."""
        self._host.stop()
        end = time.monotonic() + LAST_WORDS
        with contextlib.suppress(queue.Empty):
            while self._running and (left := end - time.monotonic()) > 0:
                self._take(self._news.get(timeout=left))
        for record in self._record.steps:
            if record.status in (Status.PENDING, Status.STARTED):
                word = "not begun" if record.status is Status.PENDING else "not ended"
                record.status, record.reason = Status.FAILED, f"{word}: the run was stopped from outside"
                self._observer.ended(record)

    def _statuses(self) -> dict[str, Status]:
        return {step.name: step.status for step in self._record.steps}

    def _fail_blocked(self) -> None:
        for step in self._steps:
            record = self._record.step(step.name)
            culprit = blocked_by(step, self._statuses())
            if record.status is Status.PENDING and culprit is not None:
                record.status = Status.FAILED
                record.reason = f"not begun: it needs {culprit}, which failed"
                self._observer.ended(record)

    def _start_startable(self) -> None:
        if self._host.boottime() > self._ends:
            self._give_up()
            return
        in_use = {name for step in self._running.values() for name in step.uses}
        seats = self._config.max_parallel - len(self._running)
        for step in startable(self._steps, self._statuses(), in_use, seats):
            record = self._record.step(step.name)
            begun = self._host.boottime()
            record.status, record.started = Status.STARTED, begun
            self._observer.started(record)
            self._running[step.name] = step
            work = threading.Thread(target=self._work, args=(step, begun), name=f"sammy-{step.name}", daemon=True)
            work.start()

    def _give_up(self) -> None:
        for record in self._record.steps:
            if record.status is Status.PENDING:
                record.status = Status.FAILED
                record.reason = f"not begun: the run's {self._config.run_deadline} s (sammy.run_deadline) were over"
                self._observer.ended(record)

    def _work(self, step: Step, begun: float) -> None:
        def line(text: str) -> None:
            self._observer.output(step.name, text)

        ends = min(begun + self._config.step_deadline, self._ends)
        host = self._host.for_step(line, max(1.0, ends - begun))
        number, before = 1, ""
        while True:
            tried = host.boottime()
            last = _perform(step, host, self._config)
            last = replace(last, started=tried, duration_ms=round((host.boottime() - tried) * 1000, 3))
            if last.status is Status.FAILED and before not in ("", last.reason):
                # An attempt cut short by the deadline says little; the one before it met the cause.
                last = replace(last, reason=f"{last.reason}; the attempt before: {before}")
            pause = pause_before(number + 1)
            over = number > step.retries or host.boottime() + pause > ends or host.is_stopped
            if last.status is not Status.FAILED or not last.transient or over:
                break
            self._news.put(_Again(step, last, number, pause))
            with contextlib.suppress(Stopped):
                host.sleep(pause)
            number, before = number + 1, last.reason.partition("; the attempt before: ")[0]
        self._news.put(_Ended(step, last, number, host.boottime() - begun, host.usage, dict(host.results)))

    def _finish(self, ended: _Ended) -> None:
        del self._running[ended.step.name]
        record = self._record.step(ended.step.name)
        record.status, record.reason, record.attempt = ended.last.status, ended.last.reason, ended.number
        record.duration_ms, record.results = round(ended.seconds * 1000, 3), ended.results
        if record.first is not None:
            record.last = ended.last.record()
        if ended.usage is not None:
            record.cpu_ms, record.peak_kb = round(ended.usage.cpu_ms, 1), ended.usage.peak_kb
            record.read_bytes, record.written_bytes = ended.usage.read_bytes, ended.usage.written_bytes
        self._observer.ended(record)
        if ended.step.changes_network and ended.last.status is not Status.SKIPPED:
            tell_network_changed(ended.step.name)


def judge(record: RunRecord) -> tuple[Outcome, str]:
    """Return what the steps that have ended make of the node, and why."""
    failed = [step for step in record.steps if step.status is Status.FAILED]
    reason = "; ".join(f"{step.name}: {step.reason}" for step in failed)
    if any(step.required for step in failed):
        return Outcome.FAILED, reason
    return (Outcome.DEGRADED if failed else Outcome.READY), reason
