# SPDX-License-Identifier: Apache-2.0
"""Which step may start now, and which is blocked for good: decisions only, no clock, no thread, no system."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cc_sammy.config import Config
from cc_sammy.contract.run_record import Status
from cc_sammy.steps.base import Step

ENDED = (Status.COMPLETED, Status.SKIPPED, Status.FAILED)


def may_report_ready(steps: Sequence[Step], statuses: Mapping[str, Status], config: Config) -> bool:
    """Return whether every step has ended that blocks readiness."""
    return all(statuses[step.name] in ENDED or not (step.blocks_ready or step.is_required(config)) for step in steps)


def blocked_by(step: Step, statuses: Mapping[str, Status]) -> str | None:
    """Return the failed step that this one needs, if there is one: it can never start."""
    return next((name for name in step.needs if statuses[name] is Status.FAILED), None)


def startable(
    steps: Sequence[Step], statuses: Mapping[str, Status], in_use: Collection[str], free_slots: int
) -> list[Step]:
    """Return the steps that may start now, in declared order."""
    taken = set(in_use)
    chosen: list[Step] = []
    for step in steps:
        if len(chosen) >= free_slots:
            break
        waits = any(statuses[name] not in ENDED for name in (*step.needs, *step.after))
        if statuses[step.name] is Status.PENDING and not waits and not (step.exclusive_resources & taken):
            chosen.append(step)
            taken |= step.exclusive_resources
    return chosen
