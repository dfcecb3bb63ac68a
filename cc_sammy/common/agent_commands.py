# SPDX-License-Identifier: Apache-2.0
"""Verbs of the agent that `sammy` has too, under the name where one looks first: each is described once, for both."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Any, NamedTuple


class Value(NamedTuple):
    """An option that takes a value; `names` are written with dashes, the long one last."""

    names: tuple[str, ...]
    shown: str
    help: str


class Switch(NamedTuple):
    """An option that takes none."""

    names: tuple[str, ...]
    help: str


class Argument(NamedTuple):
    """A word without dashes; the words it may be, where they are known, and how many."""

    name: str
    help: str
    choices: tuple[str, ...] | None = None
    nargs: str | None = None
    default: str | None = None


@dataclass(frozen=True)
class Verb:
    """A verb, its options and its arguments."""

    name: str
    help: str
    options: tuple[Value | Switch, ...]
    arguments: tuple[Argument, ...] = ()

    def add_parser(self, verbs: Any) -> argparse.ArgumentParser:
        """Add the verb to a command line."""
        parser: argparse.ArgumentParser = verbs.add_parser(self.name, help=self.help)
        # -5m is a time, not an option: argparse takes only what looks like a negative number for a value
        parser._negative_number_matcher = re.compile(r"-\d\w*$")
        for option in self.options:
            if isinstance(option, Value):
                parser.add_argument(*option.names, metavar=option.shown, help=option.help)
            else:
                parser.add_argument(*option.names, action="store_true", help=option.help)
        for argument in self.arguments:
            parser.add_argument(
                argument.name,
                choices=argument.choices,
                nargs=argument.nargs,
                default=argument.default,
                help=argument.help,
            )
        return parser

    def words(self, arguments: argparse.Namespace) -> list[str]:
        """Return the words that say the same again, for the agent's command line."""
        found = [self.name]
        for option in self.options:
            name = option.names[-1]
            value = getattr(arguments, name.removeprefix("--"))
            if isinstance(option, Switch):
                found += [name] if value else []
            elif value is not None:
                found.append(f"{name}={value}")
        for argument in self.arguments:
            value = getattr(arguments, argument.name)
            found += value if isinstance(value, list) else [value]
        return found


SINCE = Value(
    ("--since",), "TIME", "not before: -5m, -2h, -1d, boot, today, yesterday, a date, 'YYYY-MM-DD HH:MM:SS', RFC 3339"
)
EVENTS = Verb(
    "events",
    "what happened on this node: boot steps, contact, tokens, firewall, the agent itself",
    (
        SINCE,
        Value(("--level",), "LEVEL", "debug, info, warn or error: this one and what is worse"),
        Value(("--type",), "TYPE", "a type, or the beginning of types: contact. for all of that family"),
        Value(("--run",), "ID", "of one provisioning run"),
        Value(("-n", "--limit"), "N", "the newest N (default: 100, with --since or --run 10000)"),
        Switch(("-f", "--follow"), "go on with what comes, until interrupted"),
        Switch(("--json",), "print a list of objects; with --follow one object a line"),
    ),
)
METRICS = Verb(
    "metrics",
    "how this machine fared: CPU, memory, disks, network, pressure, once a minute",
    (
        SINCE._replace(help=f"{SINCE.help} (default: -1h)"),
        Switch(("--json",), "print a list of objects, one a sample, oldest first"),
    ),
)
LOGS = Verb(
    "logs",
    "what this node's logs say, as one: journal, cloud-init, containers",
    (
        Value(("--source",), "SOURCE", "all (default), agent, sammy (the boot steps), systemd, cloud-init or docker"),
        Value(("--level",), "LEVEL", "debug, info, warn or error: this one and what is worse"),
        Value(("--container",), "NAME", "a container's name or id; * and ? stand for any text and any letter"),
        SINCE,
        SINCE._replace(names=("--until",), help="not after; as --since"),
        Value(("--search",), "TEXT", "only messages in which the text stands, large and small letters alike"),
        Value(("-n", "--limit"), "N", "the newest N (default: 200, with --follow 100; at most 1000)"),
        Value(("--cursor",), "CURSOR", "go on where an earlier answer ended, further into the past"),
        Switch(("-f", "--follow"), "go on with what comes, until interrupted"),
        Switch(("--json",), "print one JSON object; with --follow one object a line"),
        Switch(("--scrub",), "take out secrets, as in the debug package"),
    ),
)
OUTBOX = Verb(
    "outbox",
    "what waits for the control plane, and what it refused",
    (Switch(("--json",), "print one JSON object"),),
    (
        Argument("action", "requeue: send again what was set aside", ("show", "requeue"), "?", "show"),
        Argument("id", "with requeue: only these rows", nargs="*"),
    ),
)
TOKEN = Verb(
    "token",
    "give this node, or a workspace, another token",
    (Value(("--workspace",), "ID", "the token is this workspace's"),),
    (Argument("action", "set: take a new one from standard input", ("set",)),),
)
DEBUG_PACKAGE = Verb(
    "debug-package",
    "gather what tells why this node is as it is, without its secrets",
    (
        Value(("--output",), "FILE", "write it there, packed as its name ends: .tar.gz, or .tar.zst where zstd is "
              "installed (default: sammy-debug-HOST-TIME.tar.gz, here)"),
        Switch(("--pseudonyms",), "put stand-ins in the place of hosts and addresses"),
        Value(("--most",), "MIB", "let the package be no larger than so many MiB"),
        Value(("--seconds",), "N", "collect no longer than so many seconds (default: 40)"),
        Switch(("--json",), "print one JSON object"),
    ),
)  # fmt: skip
VERBS = (TOKEN, EVENTS, METRICS, LOGS, OUTBOX, DEBUG_PACKAGE)
