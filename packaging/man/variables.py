# SPDX-License-Identifier: Apache-2.0
"""Fills the options into sammy(1) when the package is built, so that the page cannot lag behind the schema.

Run from the top of the tree with the page as argument; prints the page. The line `.\\" OPTIONS` marks the place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

sys.path.insert(0, os.getcwd())

MARK = '.\\" OPTIONS\n'


def roff(text: str) -> str:
    """Return the text as roff takes it literally."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + escaped if escaped.startswith(".") else escaped


def entries() -> Iterator[str]:
    """Yield one entry an option: name, variable, default, values, meaning."""
    from cc_sammy.cli import options

    for row in options.rows():
        default = options.default_text(row["default"])
        yield ".TP\n"
        yield f'.BR {roff(row["option"])} ", " {roff(row["variable"])}\n'
        yield f"{roff(row['description'])}\n" if row["description"] else ""
        yield f"Values: {roff(row['values'])}.\n"
        yield "" if default == "-" else f"Default: {roff(default)}.\n"


def main() -> int:
    """Print the filled page; exit 1 when it has no mark."""
    with open(sys.argv[1], encoding="utf-8") as file:
        before, mark, after = file.read().partition(MARK)
    if not mark:
        print(f"{sys.argv[1]} has no line {MARK!r}: the options have no place", file=sys.stderr)
        return 1
    print(before + "".join(entries()) + after, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
