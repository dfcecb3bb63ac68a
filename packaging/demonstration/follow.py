# SPDX-License-Identifier: Apache-2.0
"""Follows a boot by its journal: stages of cloud-init and steps of ours, as they begin and end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demonstration.screen import Screen

STAGE = re.compile(r"running '([a-z:-]+)'")
STAGES = {
    "init-local": "cloud-init finds its data",
    "init": "cloud-init sets up the machine",
    "modules:config": "cloud-init configures",
    "modules:final": "cloud-init runs the last modules, ours among them",
}
MARKS = {"completed": ("✔", "32"), "skipped": ("·", "2"), "failed": ("✘", "31;1")}


@dataclass
class Boot:
    """What is known of a boot so far."""

    stage: str = "kernel"
    running: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    outcome: str = ""
    reason: str = ""

    @property
    def now(self) -> str:
        """What happens now, in words."""
        if self.running:
            return " · ".join(f"{step} {time.monotonic() - begun:.0f} s" for step, begun in self.running.items())
        return self.stage


class Journal:
    """A growing file of journal entries, one JSON object a line; begins at its present end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield what has come since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line cut by a power cut
            if isinstance(entry, dict):
                yield entry


def note(boot: Boot, entry: dict[str, Any], screen: Screen) -> None:
    """Take one journal entry into account and print it if it is one of ours."""
    message = entry.get("MESSAGE")
    if entry.get("SYSLOG_IDENTIFIER") == "sammy" and "SAMMY_EVENT" in entry:
        _note_event(boot, entry, screen)
    elif isinstance(message, str) and entry.get("SYSLOG_IDENTIFIER") == "cloud-init":
        found = STAGE.search(message)
        if found and STAGES.get(found[1], boot.stage) != boot.stage:
            boot.stage = STAGES[found[1]]
            screen.line(boot.stage)


def _note_event(boot: Boot, entry: dict[str, Any], screen: Screen) -> None:
    step, status = str(entry.get("SAMMY_STEP", "")), str(entry.get("SAMMY_STATUS", ""))
    reason = str(entry.get("SAMMY_REASON", ""))
    if entry["SAMMY_EVENT"] == "provision.all":
        boot.outcome = str(entry["MESSAGE"]).removeprefix("provisioning ended: ").partition(":")[0]
        boot.reason = reason
        boot.stage = "the agent reports"
        colour = {"ready": "32;1", "degraded": "33;1"}.get(boot.outcome, "31;1")
        took = float(entry.get("SAMMY_DURATION_MS", 0)) / 1000
        screen.line(f"node {boot.outcome} after {took:.1f} s{': ' if reason else ''}{reason}", colour)
    elif entry["SAMMY_EVENT"] == "provision.config":
        boot.outcome, boot.reason = "failed", str(entry["MESSAGE"])
        screen.line(boot.reason, "31;1")
    elif status == "started":
        boot.running[step] = time.monotonic()
    elif status in MARKS:
        boot.running.pop(step, None)
        boot.ended[step] = status
        mark, colour = MARKS[status]
        took = float(entry.get("SAMMY_DURATION_MS", 0)) / 1000
        screen.line(f"  {mark} {step:<17}{took:7.1f} s  {reason}".rstrip(), colour)


def until(
    boot: Boot,
    journal: Journal,
    screen: Screen,
    *,
    arrived: Callable[[], bool],
    alive: Callable[[], bool],
    seconds: float,
) -> str:
    """Follow until `arrived`; return "" then, else in words why it will not be.

    :param arrived: asked every 2 s, and only once the steps have ended.
    """
    ends, ask_at = time.monotonic() + seconds, 0.0
    while True:
        for entry in journal.entries():
            note(boot, entry, screen)
        if boot.outcome == "failed":
            return f"the node failed: {boot.reason}"
        if boot.outcome and time.monotonic() >= ask_at:
            if arrived():
                return ""
            ask_at = time.monotonic() + 2.0
        if not alive():
            return "the machine went off"
        if time.monotonic() > ends:
            return f"not running and healthy after {seconds:.0f} s; it was at: {boot.now}"
        screen.living(boot.now)
        time.sleep(0.1)
