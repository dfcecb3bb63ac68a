# SPDX-License-Identifier: Apache-2.0
"""What a person reads on a terminal, for both commands: colours only there, and nothing that could repaint it."""

from __future__ import annotations

import os
import sys

COLOURS = {
    # statuses and outcomes of a run
    "completed": "32",
    "ready": "32",
    "failed": "31;1",
    "degraded": "33",
    "skipped": "2",
    "started": "36",
    # levels of an event or a log line
    "error": "31;1",
    "warn": "33",
    "debug": "2",
}


def escape_control_characters(text: str) -> str:
    """Return a foreign text on one line that does nothing to a terminal.

    Whatever is not printable is shown by its number: C0 and C1 controls, line breaks (U+2028 too), marks that turn the
    direction of writing or have no width, bytes that were no text.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def colorize(text: str, word: str) -> str:
    """Return the text in the colour of a status or level, plain when no terminal reads it."""
    if word not in COLOURS or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[word]}m{text}\x1b[0m"


def format_time(microseconds: int) -> str:
    """Return a time of the epoch by this machine's clock and zone, to the millisecond."""
    from datetime import datetime  # late: `sammy status` prints no time

    at = datetime.fromtimestamp(microseconds // 1_000_000)
    return f"{at:%Y-%m-%d %H:%M:%S}.{microseconds % 1_000_000 // 1000:03d}"
