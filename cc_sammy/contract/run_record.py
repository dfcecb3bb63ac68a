# SPDX-License-Identifier: Apache-2.0
"""The run record: what a provisioning run did, step by step, as the state file and the history hold it.

/run/sammy/state.json is the present state (this boot); /var/lib/sammy/runs/<run>.json the history. Both are the same
document, so that a reader needs one parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Status(str, Enum):
    """Where a step is. `pending` never reaches the journal."""

    PENDING = "pending"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Outcome(str, Enum):
    """What the run made of the node."""

    RUNNING = "running"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"


VERSION = 1


@dataclass
class AttemptRecord:
    """One attempt at a step; `reason` says why it failed, or was nothing to do; the pauses between are in none."""

    started: float
    duration_ms: float
    reason: str = ""


@dataclass
class StepRecord:
    """One step of one run; times in seconds of CLOCK_BOOTTIME, durations in milliseconds.

    `started` and `duration_ms` are of the whole step, pauses between its attempts included.
    """

    name: str
    status: Status = Status.PENDING
    required: bool = True
    started: float | None = None
    duration_ms: float | None = None
    reason: str = ""
    attempt: int = 1
    after: list[str] = field(default_factory=list)  # steps it waited for, and what it used alone: for the analysis
    uses: list[str] = field(default_factory=list)
    # What its commands used, by their own accounting; None where it ran none, or the run is of an older version.
    cpu_ms: float | None = None
    peak_kb: int | None = None  # also None when no command was larger than cloud-init itself (host.usage.ResourceUsage)
    read_bytes: int | None = None
    written_bytes: int | None = None
    results: dict[str, str] = field(default_factory=dict)  # what it got: an image's digest by its name
    # Both only of a step that was tried more than once: what it met first, and how it came out.
    first: AttemptRecord | None = None
    last: AttemptRecord | None = None

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> StepRecord:
        """Read one stored step; unknown keys are passed over."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        known["status"] = Status(known["status"])
        for name in ("first", "last"):
            if known.get(name) is not None:
                known[name] = _attempt(known[name])
        return cls(**known)


def _attempt(document: dict[str, Any]) -> AttemptRecord:
    return AttemptRecord(**{name: document[name] for name in AttemptRecord.__dataclass_fields__ if name in document})


@dataclass
class RunRecord:
    """One run of the boot steps."""

    run_id: str
    boot_id: str
    instance_id: str
    started: float
    wall_clock: str
    outcome: Outcome = Outcome.RUNNING
    reason: str = ""
    duration_ms: float | None = None
    steps: list[StepRecord] = field(default_factory=list)
    own_cpu_ms: float | None = None
    children_cpu_ms: dict[str, float] = field(default_factory=dict)
    journal_lost: int = 0
    writer: str = ""  # the process that does the run (`process_identity`); empty in records of older versions

    def step(self, name: str) -> StepRecord:
        """Return the step of that name; KeyError when the run has none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def to_json(self) -> str:
        """Return the document as it is stored: one step a line, for those who look at it.

        Written some thirty times a run: json's own indent and dataclasses.asdict would cost four times as much.
        """
        head = {name: value for name, value in vars(self).items() if name != "steps"}
        steps = ",\n ".join(json.dumps(step, default=vars) for step in self.steps)
        return f'{json.dumps({"version": VERSION, **head})[:-1]}, "steps": [\n {steps}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Read a stored document; unknown keys of a later version are passed over. ValueError when it is none."""
        document: Any = json.loads(text)
        if not isinstance(document, dict) or "run_id" not in document:
            raise ValueError("not a sammy run record")
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        known["outcome"] = Outcome(known["outcome"])
        known["steps"] = [StepRecord.from_document(step) for step in known["steps"]]
        return cls(**known)
