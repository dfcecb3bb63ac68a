# SPDX-License-Identifier: Apache-2.0
"""The schema of the `sammy:` key, read: its options, their defaults and the variables that override them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
PATH = os.path.join(os.path.dirname(__file__), "schema.json")


def load() -> Schema:
    """Return the schema of the `sammy:` key."""
    with open(PATH, encoding="utf-8") as file:
        loaded: Schema = json.load(file)
    return loaded


def options(node: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Yield every option that is not a mapping of options, with its path."""
    for name, child in node["properties"].items():
        if child.get("type") == "object" and "properties" in child:
            yield from options(child, (*path, name))
        else:
            yield (*path, name), child


def default(*path: str) -> Any:
    """Return the default of the option at a path; KeyError when it has none."""
    node = load()
    for name in path:
        node = node["properties"][name]
    return node["default"]


def variable(path: tuple[str, ...]) -> str:
    """Return the variable that overrides an option."""
    return "SAMMY_" + "_".join(path).upper()
