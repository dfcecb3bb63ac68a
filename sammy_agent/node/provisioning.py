# SPDX-License-Identifier: Apache-2.0
"""The provisioning state of this boot: what cc_sammy's run record says.

Ready may be reported only for a run of this boot that ended ready or degraded: the wire's /ready sets the node running.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cc_sammy.common import run_records
from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from sammy_agent.base.runtime.paths import Paths

LOG = logging.getLogger(__name__)
MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True)
class ProvisioningState:
    """This boot's run record, None before the run began; `problem` when it cannot be read."""

    record: RunRecord | None = None
    problem: str = ""

    @property
    def phase(self) -> str:
        """Return waiting, provisioning or ended."""
        if self.record is None:
            return "waiting"
        return "provisioning" if self.record.outcome is Outcome.RUNNING else "ended"

    @property
    def is_reportable_as_ready(self) -> bool:
        """Tell whether this boot's run ended ready or degraded."""
        return self.record is not None and self.record.outcome in (Outcome.READY, Outcome.DEGRADED)

    def summary(self) -> dict[str, Any]:
        """Return what goes into each heartbeat and the socket's status."""
        told: dict[str, Any] = {"phase": self.phase}
        if self.record is not None:
            told |= {"outcome": self.record.outcome.value, "runId": self.record.run_id, "bootId": self.record.boot_id}
            told["reason"] = self.record.reason[:MAX_REASON_CHARACTERS]
            if self.record.duration_ms is not None:
                told["durationMs"] = self.record.duration_ms
        elif self.problem:
            told["reason"] = self.problem[:MAX_REASON_CHARACTERS]
        return told

    def steps(self) -> list[dict[str, Any]]:
        """Return the steps as the heartbeat carries them when they changed."""
        if self.record is None:
            return []
        return [
            {
                "name": step.name,
                "status": step.status.value,
                **({} if step.duration_ms is None else {"durationMs": step.duration_ms}),
                **(
                    {"reason": step.reason[:MAX_REASON_CHARACTERS]}
                    if step.reason and step.status is Status.FAILED
                    else {}
                ),
            }
            for step in self.record.steps
        ]


def read(paths: Paths, boot_id: str) -> ProvisioningState:
    """Return the state file's state; a record of another boot does not count."""
    try:
        record = run_records.load(paths.state)
        if record is not None:
            datetime.fromisoformat(record.wall_clock)
    except (ValueError, KeyError, TypeError) as error:
        return ProvisioningState(problem=f"{paths.state} is damaged ({error})")
    except OSError as error:
        return ProvisioningState(problem=f"{paths.state}: {error.strerror}")
    return ProvisioningState(record if record is not None and record.boot_id == boot_id else None)
