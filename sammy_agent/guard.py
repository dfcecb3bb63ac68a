# SPDX-License-Identifier: Apache-2.0
"""Puts the firewall's rules back when another program took them away: `nft flush ruleset` is a common first line.

The network monitor hears the kernel; the firewall's own program compares and mends. Two programs that undo each other
must not make a machine busy: checks are spread, further apart with each repair, and told once in ten minutes.
"""

from __future__ import annotations

import glob
import json
import logging
import subprocess
import time
from collections.abc import Callable
from typing import Any

from cc_sammy.contract import paths
from sammy_agent.events import kinds
from sammy_agent.events.event import Record, unrecorded
from sammy_agent.worker import Backoff, Worker

LOG = logging.getLogger(__name__)
KEPT = "/var/lib/sammy/firewall/*.[nr]*"  # applied.nft, and the iptables backend's *.rules
REPAIR = (*paths.FIREWALL, "repair", "--json")  # the sammy command's cheap form, 40 ms
DEADLINE = 60.0
APART = 5.0  # seconds between two checks at the least: Docker's start alone changes rules for seconds
TOLD_EVERY = 600.0


def repair() -> dict[str, Any]:
    """Compare and mend; return the program's answer, {"ok": false, "error": …} when it gave none."""
    try:
        done = subprocess.run(REPAIR, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd="/")
        answer: Any = json.loads(done.stdout or "null")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"ok": False, "error": str(error)}
    return answer if isinstance(answer, dict) else {"ok": False, "error": done.stderr.strip() or "no answer"}


class Guard(Worker):
    """Mends after the kernel spoke of changed rules."""

    def __init__(
        self, mend: Callable[[], dict[str, Any]] = repair, kept: str = KEPT, record: Record = unrecorded
    ) -> None:
        super().__init__("guard")
        self._mend, self._kept, self._record = mend, kept, record
        self._heard = False
        self._not_before = self._tell_from = 0.0
        self._backoff = Backoff(first=APART, longest=60.0)
        self.repairs = 0

    def heard(self) -> None:
        """Take the news that rules changed."""
        self._heard = True
        self.wake()

    def turn(self) -> float | None:
        """Check when there is news, and not sooner after the last time than is good for the machine."""
        now = time.monotonic()
        if not self._heard:
            return None
        if now < self._not_before:
            return self._not_before - now
        self._heard = False
        if not glob.glob(self._kept):
            return None  # nothing was applied on this machine, or it was removed by hand
        answer = self._mend()
        self._not_before = time.monotonic() + APART
        if not answer.get("ok"):
            self._heard = True  # not known to be in force: asked again
            self._not_before = time.monotonic() + self._backoff.pause()
            self._record(kinds.FIREWALL_UNCHECKED, f"the firewall could not be checked: {answer.get('error')}")
            self._tell(f"the firewall could not be checked: {answer.get('error')}. See `sammy firewall check`")
        elif answer.get("repaired"):
            self.repairs += 1
            self._not_before = time.monotonic() + self._backoff.pause()
            what = f"the firewall's rules were changed by another program and are back: {answer['repaired'][0]}"
            self._record(kinds.FIREWALL_REPAIRED, what, detail={"differences": answer["repaired"]})
            self._tell(what)
        else:
            self._backoff.reset()
        return self._not_before - time.monotonic() if self._heard else None

    def _tell(self, words: str) -> None:
        if time.monotonic() >= self._tell_from:
            self._tell_from = time.monotonic() + TOLD_EVERY
            LOG.warning("%s (repairs so far: %d)", words, self.repairs)
