# SPDX-License-Identifier: Apache-2.0
"""Where a run's time went: what waited for what, which chain made it as long as it was, and what would shorten it.

Decisions only, over a stored run. A step waits for the steps it names and for those that used the same thing alone
(apt, Docker's daemon) before it, in the order in which they really did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cc_sammy.contract.run_record import RunRecord, StepRecord


@dataclass(frozen=True)
class Span:
    """One step that ran, in milliseconds since the run began."""

    name: str
    begin: float
    duration: float
    waits_for: tuple[str, ...]
    uses: tuple[str, ...]
    status: str
    cpu_ms: float | None = None  # what its commands used: contract.state.StepRecord says how it is counted
    peak_kb: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None

    @property
    def end(self) -> float:
        """When it ended."""
        return self.begin + self.duration


@dataclass(frozen=True)
class Cost:
    """What a step means for the whole, in milliseconds."""

    span: Span
    slack: float  # how much longer it might have taken without making the run longer
    saving: float  # how much shorter the run would be if it took no time


def spans(record: RunRecord) -> list[Span]:
    """Return the steps that began, in the order in which they did."""
    begun = sorted((step for step in record.steps if step.started is not None), key=lambda step: step.started or 0.0)
    return [
        Span(
            step.name,
            ((step.started or 0.0) - record.started) * 1000,
            step.duration_ms or 0.0,
            (*step.after, *_users_before(step, begun)),
            tuple(step.uses),
            step.status.value,
            step.cpu_ms,
            step.peak_kb,
            step.read_bytes,
            step.written_bytes,
        )
        for step in begun
    ]


def _users_before(step: StepRecord, begun: Sequence[StepRecord]) -> tuple[str, ...]:
    earlier = begun[: begun.index(step)]
    return tuple(other.name for other in earlier if set(other.uses) & set(step.uses))


def end_times(found: Sequence[Span], durations: Mapping[str, float]) -> dict[str, float]:
    """Return when each step would have ended with these durations, all else as it was."""
    ends: dict[str, float] = {}
    for span in found:
        begin = max((ends[name] for name in span.waits_for if name in ends), default=0.0)
        ends[span.name] = begin + durations[span.name]
    return ends


def critical_chain(found: Sequence[Span]) -> list[Span]:
    """Return the chain of steps, each waiting for the one before, that ended last; first step first."""
    by_name = {span.name: span for span in found}
    chain: list[Span] = []
    step = max(found, key=lambda span: span.end, default=None)
    while step is not None:
        chain.append(step)
        before = [by_name[name] for name in step.waits_for if name in by_name]
        step = max(before, key=lambda span: span.end, default=None)
    return chain[::-1]


def step_costs(found: Sequence[Span]) -> list[Cost]:
    """Return what each step means for the whole, the dearest first."""
    durations = {span.name: span.duration for span in found}
    ends = end_times(found, durations)
    whole = max(ends.values(), default=0.0)
    latest = dict.fromkeys(ends, whole)
    for span in reversed(found):
        for name in span.waits_for:
            if name in latest:
                latest[name] = min(latest[name], latest[span.name] - span.duration)

    def without(name: str) -> float:
        return max(end_times(found, {**durations, name: 0.0}).values())

    listed = [Cost(span, latest[span.name] - ends[span.name], whole - without(span.name)) for span in found]
    return sorted(listed, key=lambda cost: cost.span.duration, reverse=True)
