# SPDX-License-Identifier: Apache-2.0
"""Tables that align and colours only where a person looks."""

from __future__ import annotations

import os
import sys

from cc_sammy.common.text_table import table

__all__ = ["paint", "table"]

COLOURS = {
    "completed": "32",
    "ready": "32",
    "failed": "31;1",
    "degraded": "33",
    "skipped": "2",
    "started": "36",
}


def paint(text: str, word: str) -> str:
    """Return the text in the colour of a status word, plain when no terminal reads it."""
    if word not in COLOURS or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[word]}m{text}\x1b[0m"
