# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent logs`: shows this node's logs on a terminal, oldest first, or as JSON for scripts.

Exit statuses: 0 something was shown, 1 a log could not be read, 2 the query is invalid, 3 no entry matches.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.logs.query import PARAMETERS, Query, QueryInvalid, parse

if TYPE_CHECKING:
    from sammy_agent.diagnostics.logs.entry import Entry
    from sammy_agent.diagnostics.logs.merge import Page
    from sammy_agent.diagnostics.redaction.redactor import Redactor


def run(arguments: argparse.Namespace) -> int:
    """Show the logs; return the exit status. AgentError when they cannot be read."""
    asked = {name: value for name, value in vars(arguments).items() if name in PARAMETERS and value is not None}
    try:
        question = parse(asked)
        if arguments.follow and (lost := [f"--{name}" for name in ("until", "cursor") if name in asked]):
            raise QueryInvalid([f"{' and '.join(lost)} cannot be used with --follow, which starts from now"])
        return _follow(question, arguments) if arguments.follow else _page(question, arguments)
    except QueryInvalid as error:
        print("\n".join(f"sammy-agent: {problem}" for problem in error.problems), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0  # it is how one ends --follow


def _page(question: Query, arguments: argparse.Namespace) -> int:
    from sammy_agent.diagnostics.logs import reader

    page = reader.whole_page(question, arguments.root, redactor=_redactor(arguments))
    if arguments.json:
        print(json.dumps(page.document()))
    else:
        _show(page.entries[::-1])
        _tell(page, arguments)
    if page.entries:
        return 0
    return 1 if page.notes else 3


def _follow(question: Query, arguments: argparse.Namespace) -> int:
    from sammy_agent.diagnostics.logs import reader

    catch_up = question.limit if arguments.limit else reader.CATCH_UP
    followed = reader.follow(
        question, arguments.root, catch_up=catch_up, redactor=_redactor(arguments), tell=_tell_note
    )
    for entries in followed:
        if arguments.json:
            print("".join(f"{json.dumps(entry.document())}\n" for entry in entries), end="")
        else:
            _show(entries)
        sys.stdout.flush()
    return 0


def _redactor(arguments: argparse.Namespace) -> Redactor | None:
    if not arguments.scrub:
        return None
    from sammy_agent.diagnostics.redaction.node_secrets import collect_secrets
    from sammy_agent.diagnostics.redaction.redactor import Redactor

    return Redactor(collect_secrets(Paths(arguments.root)))


def _show(entries: Sequence[Entry]) -> None:
    from sammy_agent.cli import log_lines

    for entry in entries:
        print("\n".join(log_lines.lines(entry)))


def _tell(page: Page, arguments: argparse.Namespace) -> None:
    """Print to standard error what was not shown, and how to get it."""
    for note in page.notes:
        _tell_note(note)
    if not page.entries and not page.notes:
        bounds = [f"--{name}" for name in PARAMETERS if name != "limit" and getattr(arguments, name)]
        why = f"; without {' or '.join(bounds)} there may be some" if bounds else " on this machine"
        print(f"sammy-agent: no entries{why}", file=sys.stderr)
    if page.cursor and sys.stderr.isatty():
        print(f"older ones: {shlex.join(command_for(arguments, page.cursor))}", file=sys.stderr)


def command_for(arguments: argparse.Namespace, cursor: str) -> list[str]:
    """Return the command that goes on from a cursor with the options of this one."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("verb", "root")}
    options |= {"cursor": cursor, **({"root": arguments.root} if arguments.root else {})}
    words = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not None and value is not False
    ]
    return ["sammy-agent" if arguments.root else "sammy", "logs", *words]


def _tell_note(note: str) -> None:
    print(f"sammy-agent: {note}", file=sys.stderr)
