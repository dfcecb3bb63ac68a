# SPDX-License-Identifier: Apache-2.0
"""Runs the steps: each in a thread of its own; all reporting and all records in the one coordinating thread.

Durations are measured in the step's own thread, right around its work, so that no step is charged for reporting.
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
from cc_sammy.engine.agent_notify import notify_network_changed
from cc_sammy.engine.schedule import blocked_by, may_report_ready, startable
from cc_sammy.errors import SammyError, Stopped
from cc_sammy.host.host import Host
from cc_sammy.host.usage import ResourceUsage
from cc_sammy.steps.base import Step

MIN_RETRY_DELAY, MAX_RETRY_DELAY = 2.0, 30.0  # seconds
STOP_GRACE = 10.0  # seconds that a stopped run waits for its steps, which may still restore something


class Observer(Protocol):
    """Is notified of the run; called from the coordinating thread only, except `output`."""

    def started(self, step: StepRecord) -> None:
        """A step starts."""

    def ended(self, step: StepRecord) -> None:
        """A step has its final status."""

    def retrying(self, step: StepRecord, reason: str, delay: float) -> None:
        """An attempt failed for a transient cause; the next one starts in `delay` seconds."""

    def ready_early(self) -> None:
        """All steps that block readiness have ended; others still run or wait."""

    def output(self, step: str, line: str) -> None:
        """A command of the step printed a line; called from the step's thread."""


@dataclass(frozen=True)
class _Attempt:
    """The outcome of one attempt at a step."""

    status: Status
    reason: str = ""
    transient: bool = False
    started: float = 0.0
    duration_ms: float = 0.0

    def record(self) -> AttemptRecord:
        """Return it as the step's record keeps it."""
        return AttemptRecord(self.started, self.duration_ms, self.reason)


@dataclass(frozen=True)
class _Finished:
    step: Step
    last: _Attempt
    number: int
    seconds: float
    usage: ResourceUsage | None
    results: dict[str, str]


@dataclass(frozen=True)
class _Retry:
    step: Step
    last: _Attempt
    number: int
    delay: float


def _run_attempt(step: Step, host: Host, config: Config) -> _Attempt:
    try:
        reason = step.already_done(host, config)
        if reason is not None:
            return _Attempt(Status.SKIPPED, reason)
        step.run(host, config)
        met = step.verify(host, config) if step.verify else step.already_done(host, config) is not None
    except SammyError as error:
        return _Attempt(Status.FAILED, str(error), error.transient)
    except OSError as error:
        said = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
        return _Attempt(Status.FAILED, said)
    except Exception as error:  # a bug of ours must fail its step, not the whole boot
        return _Attempt(Status.FAILED, f"internal error, please report it: {type(error).__name__}: {error}")
    if not met:
        return _Attempt(Status.FAILED, "it ran to its end, but its goal is not met; see journalctl -t sammy")
    return _Attempt(Status.COMPLETED)


def retry_delay(attempt: int) -> float:
    """Return the seconds to wait before an attempt: full jitter, so that a fleet does not retry in step."""
    return random.uniform(0.0, min(MAX_RETRY_DELAY, MIN_RETRY_DELAY * 2.0 ** (attempt - 2)))


class Runner:
    """One run of the steps over a host."""

    def __init__(
        self, steps: Sequence[Step], host: Host, config: Config, record: RunRecord, observer: Observer
    ) -> None:
        self._steps = steps
        self._host, self._config, self._record, self._observer = host, config, record, observer
        self._news: queue.SimpleQueue[_Finished | _Retry] = queue.SimpleQueue()
        self._ends = host.boottime() + config.run_deadline
        self._running: dict[str, Step] = {}
        self._reported_ready = False

    def __repr__(self) -> str:
        return f"<Runner {len(self._running)} running, {len(self._steps)} steps>"

    def run(self) -> None:
        """Run all steps to their end; the record has their results.

        :raises BaseException: what stopped the run from outside (cloud-init makes SystemExit of a SIGTERM); no command
            is left then, which the record shows.
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
            if not self._reported_ready and may_report_ready(self._steps, self._statuses(), self._config):
                self._reported_ready = True
                self._observer.ready_early()
            self._handle(self._news.get())

    def _handle(self, news: _Finished | _Retry) -> None:
        if isinstance(news, _Finished):
            self._finish(news)
        else:
            record = self._record.step(news.step.name)
            record.attempt = news.number + 1
            record.first = record.first or news.last.record()
            self._observer.retrying(record, news.last.reason, news.delay)

    def _stop(self) -> None:
        """Kill what runs, collect how it ended, and mark every other step as not started or interrupted."""
        self._host.stop()
        end = time.monotonic() + STOP_GRACE
        with contextlib.suppress(queue.Empty):
            while self._running and (left := end - time.monotonic()) > 0:
                self._handle(self._news.get(timeout=left))
        for record in self._record.steps:
            if record.status in (Status.PENDING, Status.STARTED):
                word = "not started" if record.status is Status.PENDING else "interrupted"
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
                record.reason = f"not started: it needs {culprit}, which failed"
                self._observer.ended(record)

    def _start_startable(self) -> None:
        if self._host.boottime() > self._ends:
            self._fail_pending()
            return
        in_use = {name for step in self._running.values() for name in step.exclusive_resources}
        slots = self._config.max_parallel - len(self._running)
        for step in startable(self._steps, self._statuses(), in_use, slots):
            record = self._record.step(step.name)
            started = self._host.boottime()
            record.status, record.started = Status.STARTED, started
            self._observer.started(record)
            self._running[step.name] = step
            work = threading.Thread(target=self._work, args=(step, started), name=f"sammy-{step.name}", daemon=True)
            work.start()

    def _fail_pending(self) -> None:
        for record in self._record.steps:
            if record.status is Status.PENDING:
                record.status = Status.FAILED
                record.reason = f"not started: the run's {self._config.run_deadline} s (sammy.run_deadline) had passed"
                self._observer.ended(record)

    def _work(self, step: Step, started: float) -> None:
        def line(text: str) -> None:
            self._observer.output(step.name, text)

        ends = min(started + self._config.step_deadline, self._ends)
        host = self._host.for_step(line, max(1.0, ends - started))
        number, before = 1, ""
        while True:
            tried = host.boottime()
            last = _run_attempt(step, host, self._config)
            last = replace(last, started=tried, duration_ms=round((host.boottime() - tried) * 1000, 3))
            if last.status is Status.FAILED and before not in ("", last.reason):
                # An attempt cut short by the deadline says little; the one before it has the cause.
                last = replace(last, reason=f"{last.reason}; the previous attempt: {before}")
            delay = retry_delay(number + 1)
            over = number > step.retries or host.boottime() + delay > ends or host.is_stopped
            if last.status is not Status.FAILED or not last.transient or over:
                break
            self._news.put(_Retry(step, last, number, delay))
            with contextlib.suppress(Stopped):
                host.sleep(delay)
            number, before = number + 1, last.reason.partition("; the previous attempt: ")[0]
        self._news.put(_Finished(step, last, number, host.boottime() - started, host.usage, dict(host.results)))

    def _finish(self, ended: _Finished) -> None:
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
            notify_network_changed(ended.step.name)


def overall_outcome(record: RunRecord) -> tuple[Outcome, str]:
    """Return the run's outcome by the steps that have ended, and why."""
    failed = [step for step in record.steps if step.status is Status.FAILED]
    reason = "; ".join(f"{step.name}: {step.reason}" for step in failed)
    if any(step.required for step in failed):
        return Outcome.FAILED, reason
    return (Outcome.DEGRADED if failed else Outcome.READY), reason
