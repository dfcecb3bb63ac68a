# SPDX-License-Identifier: Apache-2.0
"""Shows steps that overlap as the single row of stages that cloud-init's reporter (`cloud-init analyze`) can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class StageTimeline:
    """Reports steps that overlap to cloud-init as one row of stages that do not.

    `cloud-init analyze` pairs start and end by nesting, so overlapping steps would break its arithmetic. One running
    step is shown at a time: when it ends, those that ended meanwhile follow with a duration of zero, and the next
    running one is shown. The shown times add up to the wall clock.
    """

    def __init__(self, open_stage: Callable[[str], Any] | None) -> None:
        self._open_stage = open_stage
        self._running: list[str] = []
        self._shown: tuple[str, Any] | None = None
        self._ended_meanwhile: list[tuple[str, str, bool]] = []

    def started(self, step: str) -> None:
        """A step starts."""
        self._running.append(step)
        self._fill()

    def ended(self, step: str, summary: str, failed: bool) -> None:
        """A step ended; `summary` has its own duration."""
        if step in self._running:
            self._running.remove(step)
        if self._shown is not None and self._shown[0] != step:
            self._ended_meanwhile.append((step, summary, failed))
            return
        stage = self._shown[1] if self._shown else self._enter(step)
        self._shown = None
        self._close(stage, summary, failed)
        for hidden in self._ended_meanwhile:
            self._close(self._enter(hidden[0]), hidden[1], hidden[2])
        self._ended_meanwhile.clear()
        self._fill()

    def _fill(self) -> None:
        if self._shown is None and self._running and self._open_stage is not None:
            self._shown = (self._running[0], self._enter(self._running[0]))

    def _enter(self, step: str) -> Any:
        if self._open_stage is None:
            return None
        stage = self._open_stage(step)
        stage.__enter__()
        return stage

    @staticmethod
    def _close(stage: Any, summary: str, failed: bool) -> None:
        if stage is None:
            return
        stage.description = summary
        if failed:
            stage.result = "FAIL"
        stage.__exit__(None, None, None)
