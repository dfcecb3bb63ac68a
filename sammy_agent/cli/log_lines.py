# SPDX-License-Identifier: Apache-2.0
"""Entries as lines for people: aligned, coloured where a person looks, and never a control character raw."""

from __future__ import annotations

import re

from cc_sammy.common.terminal import colorize, escape_control_characters, format_time
from sammy_agent.diagnostics.logs.entry import Entry

COLOURED_TEXT = re.compile(r"\x1b\[[0-9;:]*m")


def lines(entry: Entry) -> list[str]:
    """Return an entry as lines: time in this machine's zone, level, source, who, and the message.

    What only colours the message is left out; anything else that is not to be read is shown by its number.
    """
    head = f"{format_time(entry.time)}  {entry.level:<5}  {entry.source:<10}  "
    first, *others = (_harmless(line) for line in entry.message.split("\n"))
    said = [f"{head}{_who(entry)}{first}", *(" " * len(head) + line for line in others)]
    return [colorize(line, entry.level) for line in said]


def _harmless(line: str) -> str:
    return escape_control_characters(COLOURED_TEXT.sub("", line.rstrip()).expandtabs(4))


def _who(entry: Entry) -> str:
    """Return who spoke, where the source does not say it."""
    names = {"docker": ("container",), "systemd": ("identifier", "unit"), "sammy": ("step",)}.get(entry.source, ())
    who = next((entry.metadata[name] for name in names if entry.metadata.get(name)), "")
    return f"{escape_control_characters(who)}: " if who else ""
