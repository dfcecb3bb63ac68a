# SPDX-License-Identifier: Apache-2.0
"""What a person sees while it boots: lines that stay, and on a terminal one line below them that lives."""

from __future__ import annotations

import os
import sys
import time

WHEEL = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Screen:
    """Prints to standard output; the living line only where a person looks."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._turn = 0

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def restart_clock(self) -> None:
        """Count from now: the machine's power-on."""
        self._began = time.monotonic()

    def line(self, text: str, colour: str = "") -> None:
        """Print a line that stays, with the seconds before it."""
        painted = f"\x1b[{colour}m{text}\x1b[0m" if colour and self._colour else text
        self._clear()
        print(f"{self.seconds:7.1f} s  {painted}", flush=True)

    def plain(self, text: str) -> None:
        """Print text as it is."""
        self._clear()
        print(text, flush=True)

    def living(self, text: str) -> None:
        """Show what happens now, on a terminal only."""
        if not self._terminal:
            return
        self._turn += 1
        room = max(20, os.get_terminal_size().columns - 14)
        sys.stdout.write(f"\r\x1b[K{self.seconds:7.1f} s  {WHEEL[self._turn % len(WHEEL)]} {text[:room]}")
        sys.stdout.flush()

    def _clear(self) -> None:
        if self._terminal:
            sys.stdout.write("\r\x1b[K")
