# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/architecture.md, made from import-linter's contracts and each room's own docstring.

    python3 -m tests.rooms --write      # after a room came, went or moved

What a room is for is said once, in its `__init__` (or in the module's first line): the page repeats it, and a test
holds the two equal. Needs Python 3.11 or later (tomllib).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib  # type: ignore[import-not-found]  # types are judged as of 3.10, tests run on 3.11 and later

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: python3 -m tests.rooms --write -->\n", "<!-- end of rooms -->\n"


def contracts() -> Iterator[dict[str, Any]]:
    """Yield import-linter's layered contracts, top floor first."""
    with (TOP / "pyproject.toml").open("rb") as file:
        every = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    yield from (one for one in every if one["type"] == "layers")


def sentence(room: str) -> str:
    """Return the first paragraph of a package's or module's docstring, on one line."""
    place = TOP / room.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def table(contract: dict[str, Any]) -> str:
    """Return one contract as a table: a row for each room, a floor's rooms beside each other."""
    (container,) = contract["containers"]
    lines = [f"### `{container}`: {contract['name']}", "", "| floor | room | what belongs there |", "|-:|-|-|"]
    for floor, names in enumerate(reversed(contract["layers"])):
        lines += [
            f"| {floor} | `{name}` | {sentence(f'{container}.{name}')} |" for name in map(str.strip, names.split("|"))
        ]
    head, rows = lines[:4], lines[4:]
    # Written top floor first, as the contract has it.
    floors = sorted(rows, key=lambda row: -int(row.split("|")[1]))
    return "\n".join([*head, *floors, ""])


def tables() -> str:
    """Return all of them, as the page holds them between its marks."""
    return "\n".join(table(contract) for contract in contracts())


def held() -> str:
    """Return what the page holds between its marks."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    """Print the tables, or put them into the page."""
    if "--write" not in sys.argv[1:]:
        print(tables())
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tables()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
