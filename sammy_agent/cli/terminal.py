# SPDX-License-Identifier: Apache-2.0
"""What a person reads on a terminal: colours only there, nothing that could repaint it."""

from __future__ import annotations

import os
import sys
from datetime import datetime

COLOURS = {"error": "31;1", "warn": "33", "debug": "2"}


def safe(text: str) -> str:
    """Return a text on one line that does nothing to a terminal: what is not printable is shown by its number."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def paint(text: str, level: str) -> str:
    """Return the text in the colour of a level, plain when no terminal reads it."""
    if level not in COLOURS or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[level]}m{text}\x1b[0m"


def clock(microseconds: int) -> str:
    """Return a time of the epoch by this machine's clock and zone, to the millisecond."""
    at = datetime.fromtimestamp(microseconds // 1_000_000)
    return f"{at:%Y-%m-%d %H:%M:%S}.{microseconds % 1_000_000 // 1000:03d}"
