# SPDX-License-Identifier: Apache-2.0
"""A run record as events: one for each step that started or ended, with a key by which it is stored only once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cc_sammy.contract.run_record import RunRecord, Status, StepRecord
from sammy_agent.base.events.event import MAX_MESSAGE_CHARS, NewEvent, detail_text
from sammy_agent.base.events.kinds import PROVISION


def events_from_run_record(record: RunRecord) -> Iterator[NewEvent]:
    """Yield the events that a record implies so far. ValueError: its wall clock is not valid."""
    for step in record.steps:
        if step.started is not None and step.status is not Status.SKIPPED:
            yield _event(record, step, Status.STARTED, step.started)
        if step.status in (Status.COMPLETED, Status.FAILED, Status.SKIPPED):
            began = record.started if step.started is None else step.started
            yield _event(record, step, step.status, began + (step.duration_ms or 0.0) / 1000)


def _event(record: RunRecord, step: StepRecord, status: Status, boottime: float) -> NewEvent:
    ended = status is not Status.STARTED
    message = f"{step.name} {status.value}" + (f": {step.reason}" if ended and step.reason else "")
    return NewEvent(
        created_at=wall_clock_us(record, boottime),
        boottime_us=round(boottime * 1e6),
        boot_id=record.boot_id,
        level=("error" if step.required else "warn") if status is Status.FAILED else "info",
        type=PROVISION + step.name,
        message=message[:MAX_MESSAGE_CHARS],
        run_id=record.run_id,
        step=step.name,
        status=status.value,
        attempt=step.attempt,
        duration_us=round(step.duration_ms * 1000) if ended and step.duration_ms is not None else None,
        detail=detail_text(step.results) if ended else None,
        key=f"{record.run_id}/{step.name}/{step.attempt}/{status.value}",
    )


def wall_clock_us(record: RunRecord, boottime: float) -> int:
    """Return a time of CLOCK_BOOTTIME by the wall clock that the run began with, microseconds since the epoch."""
    began = datetime.fromisoformat(record.wall_clock).timestamp()
    return round((began + boottime - record.started) * 1e6)
