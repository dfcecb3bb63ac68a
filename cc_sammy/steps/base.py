# SPDX-License-Identifier: Apache-2.0
"""What a step is, and which step may begin now: decisions only, no clock, no thread, no system."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cc_sammy.config import Config
from cc_sammy.contract.journal_fields import Status
from cc_sammy.host.host import Host

ENDED = (Status.COMPLETED, Status.SKIPPED, Status.FAILED)


@dataclass(frozen=True)
class Step:
    """One boot step, as a value.

    :param satisfied: asks the system, not a ledger; returns why there is nothing to do, or None.
    :param run: does the work; safe to repeat; raises SammyError in plain words.
    :param needs: steps that must not have failed before this one begins.
    :param after: steps that must have ended, however they did.
    :param uses: what only one step at a time may use ("apt", "docker-daemon").
    :param section: the configuration's section that holds `required`.
    :param achieved: tells after the work whether its goal is met; without it, `satisfied` does.
    :param awaited: the node is not ready before it has ended; False: only where it is `required`.
    :param retries: further attempts when the cause may pass by itself.
    """

    name: str
    section: str
    satisfied: Callable[[Host, Config], str | None]
    run: Callable[[Host, Config], None]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    uses: frozenset[str] = frozenset()
    changes_network: bool = False
    achieved: Callable[[Host, Config], bool] | None = None
    retries: int = 0
    awaited: bool = True

    def is_required(self, config: Config) -> bool:
        """Tell whether its failure makes the node failed rather than degraded."""
        return bool(config.plain[self.section]["required"])


def is_settled(steps: Sequence[Step], statuses: Mapping[str, Status], config: Config) -> bool:
    """Tell whether everything has ended that the node's readiness waits for."""
    return all(statuses[step.name] in ENDED or not (step.awaited or step.is_required(config)) for step in steps)


def blocked_by(step: Step, statuses: Mapping[str, Status]) -> str | None:
    """Return the failed step that this one needs, if there is one: it can never begin."""
    return next((name for name in step.needs if statuses[name] is Status.FAILED), None)


def startable(
    steps: Sequence[Step], statuses: Mapping[str, Status], in_use: Collection[str], free_seats: int
) -> list[Step]:
    """Return the steps that may begin now, in declared order."""
    taken = set(in_use)
    chosen: list[Step] = []
    for step in steps:
        if len(chosen) >= free_seats:
            break
        waits = any(statuses[name] not in ENDED for name in (*step.needs, *step.after))
        if statuses[step.name] is Status.PENDING and not waits and not (step.uses & taken):
            chosen.append(step)
            taken |= step.uses
    return chosen
