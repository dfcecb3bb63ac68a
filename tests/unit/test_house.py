# SPDX-License-Identifier: Apache-2.0
"""What keeps the house easy to find one's way in: few doors, one meaning a name; import-linter holds its arrows.

A figure that is below its bar may become smaller here, never larger.
"""

from __future__ import annotations

import ast
import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PACKAGES = ("cc_sammy", "sammy_agent")
ENTRIES = 9
SHARED_MODULE_NAMES = 40
SHARED_CLASS_NAMES = 6  # the two ends of one wire message


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((TOP / package).rglob("*.py"))


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def shared(names: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Return each name that stands for two things, with where they are."""
    found = collections.defaultdict(list)
    for name, path in names:
        found[name].append(str(path.relative_to(TOP)))
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_newcomer_sees_few_doors() -> None:
    entries = sorted(path.name for path in (TOP / "sammy_agent").iterdir() if path.name != "__pycache__")
    assert len(entries) <= ENTRIES, entries


def test_modules_that_share_a_name_are_the_same_thing_in_parallel_rooms() -> None:
    found = shared((path.stem, path) for path in modules() if path.name not in ("__init__.py", "__main__.py"))
    assert sum(map(len, found.values())) <= SHARED_MODULE_NAMES, found


def test_one_public_class_name_means_one_thing() -> None:
    found = shared(
        (node.name, path)
        for path in modules()
        for node in definitions(path)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert len(found) <= SHARED_CLASS_NAMES, found


def test_a_function_says_what_it_judges() -> None:
    assert [str(path) for path in modules() for node in definitions(path) if node.name == "judge"] == []


def test_every_program_is_checked_for_types() -> None:
    """Those without an ending are found by nobody unless they are named."""
    named = re.findall(r'^    "([\w/-]+)",$', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    programs = [
        str(path.relative_to(TOP))
        for folder in ("tests", "packaging", ".ci")
        for path in (TOP / folder).rglob("*")
        if path.is_file() and "." not in path.name and os.access(path, os.X_OK)
    ]
    python = [one for one in programs if "python" in (TOP / one).read_text().partition("\n")[0]]
    assert sorted(python) == sorted(one for one in named if one in programs)
