# SPDX-License-Identifier: Apache-2.0
"""Tables that align and colours only where a person looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return aligned lines; `right` numbers the columns flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
