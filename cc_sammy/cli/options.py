# SPDX-License-Identifier: Apache-2.0
"""`sammy options`: every option of the `sammy:` key, its default and the variable that overrides it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from cc_sammy.common.text_table import table
from cc_sammy.contract import schema

HEADING = """# Configuration

Every option of the `sammy:` key of the user-data. A variable in `/etc/default/sammy` or in the environment wins over
the user-data; a list is written with spaces or commas, and an empty
value unsets an option that has no default. This page is `sammy options --markdown`.

| option | values | default | variable | |
|---|---|---|---|---|"""


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("options", help="every option of the sammy: key, with default and variable")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print a list of objects")
    how.add_argument("--markdown", action="store_true", help="print the page of the documentation")


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row an option."""
    for path, child in schema.options(schema.load()):
        yield {
            "option": ".".join(path),
            "values": _values(child),
            "default": child.get("default"),
            "variable": schema.variable(path),
            "description": child.get("description", ""),
        }


def _values(child: dict[str, Any]) -> str:
    """Say in a few words what the option takes."""
    if "anyOf" in child:
        return " or ".join(_values(option) for option in child["anyOf"])
    if "enum" in child:
        return ", ".join(child["enum"])
    if child["type"] == "integer":
        return f"{child.get('minimum', '')} to {child.get('maximum', 'any')}"
    return {"array": "list", "object": "mapping", "string": "text", "boolean": "true, false"}[child["type"]]


def default_text(value: Any) -> str:
    """Return a default as the table, the manual page and the documentation show it."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def markdown() -> str:
    """Return the documentation's page."""
    cells = [
        (f"`{row['option']}`", row["values"], default_text(row["default"]), f"`{row['variable']}`", row["description"])
        for row in rows()
    ]
    return "\n".join([HEADING, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


def run(arguments: argparse.Namespace) -> int:
    """Print the options; exit 0."""
    if arguments.json:
        print(json.dumps(list(rows()), indent=1))
    elif arguments.markdown:
        print(markdown(), end="")
    else:
        cells = [
            ("OPTION", "DEFAULT", "VARIABLE"),
            *((r["option"], default_text(r["default"]), r["variable"]) for r in rows()),
        ]
        print("\n".join(table(cells)))
    return 0
