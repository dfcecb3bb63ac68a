# SPDX-License-Identifier: Apache-2.0
"""What a step is: a value with its needs and two functions. engine.schedule decides which step may start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cc_sammy.config import Config
from cc_sammy.contract.config_types import StepSection
from cc_sammy.host.host import Host


@dataclass(frozen=True)
class Step:
    """One boot step, as a value.

    :param already_done: asks the system, not a record; returns why there is nothing to do, or None.
    :param run: does the work; safe to repeat; raises SammyError in plain language.
    :param needs: steps that must have ended without failure before this one starts.
    :param after: steps that must have ended before, with or without failure.
    :param exclusive_resources: what only one running step may use at a time ("apt", "docker-daemon").
    :param section: the configuration's section that holds `required`.
    :param verify: returns after `run` whether the goal is met; without it, `already_done` does.
    :param blocks_ready: the node is not ready before it has ended; False: only if it is `required`.
    :param retries: further attempts when the cause is transient.
    """

    name: str
    section: StepSection
    already_done: Callable[[Host, Config], str | None]
    run: Callable[[Host, Config], None]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    exclusive_resources: frozenset[str] = frozenset()
    changes_network: bool = False
    verify: Callable[[Host, Config], bool] | None = None
    retries: int = 0
    blocks_ready: bool = True

    def is_required(self, config: Config) -> bool:
        """Return whether its failure makes the node failed rather than degraded."""
        return config.is_required(self.section)
