# SPDX-License-Identifier: Apache-2.0
"""What a step is: a value with its needs and two functions. Which step may start is engine.schedule's to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cc_sammy.config import Config
from cc_sammy.contract.config_types import StepSection
from cc_sammy.host.host import Host


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
    section: StepSection
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
        return config.is_required(self.section)
