# SPDX-License-Identifier: Apache-2.0
"""Formats entries for a terminal: aligned, coloured, and never with a raw control character."""

from __future__ import annotations

import re

from cc_sammy.common.terminal import colorize, escape_control_characters, format_time
from sammy_agent.diagnostics.logs.entry import Entry

COLOURED_TEXT = re.compile(r"\x1b\[[0-9;:]*m")


def lines(entry: Entry) -> list[str]:
    """Format an entry: time in this machine's zone, level, source, origin, and the message.

    Colour codes in the message are dropped; other control characters are escaped.
    """
    head = f"{format_time(entry.time)}  {entry.level:<5}  {entry.source:<10}  "
    first, *others = (_harmless(line) for line in entry.message.split("\n"))
    said = [f"{head}{_who(entry)}{first}", *(" " * len(head) + line for line in others)]
    return [colorize(line, entry.level) for line in said]


def _harmless(line: str) -> str:
    return escape_control_characters(COLOURED_TEXT.sub("", line.rstrip()).expandtabs(4))


def _who(entry: Entry) -> str:
    """Return the entry's origin within its source, where there is one."""
    names = {"docker": ("container",), "systemd": ("identifier", "unit"), "sammy": ("step",)}.get(entry.source, ())
    who = next((entry.metadata[name] for name in names if entry.metadata.get(name)), "")
    return f"{escape_control_characters(who)}: " if who else ""
