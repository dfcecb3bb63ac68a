# SPDX-License-Identifier: Apache-2.0
"""The options of the agent's verbs, apart from the verbs themselves: parsing loads none of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from cc_sammy.common.agent_commands import AGENT_COMMANDS

SINCE = "not before: -5m, -2h, -1d, boot, today, yesterday, a date, 'YYYY-MM-DD HH:MM:SS', RFC 3339"
LEVEL = "debug, info, warn or error: this one and what is worse"
OPTION, NEGATIVE = re.compile(r"--?[a-z][a-z-]*"), re.compile(r"-\d\w*")


def add_parsers(verbs: Any) -> list[argparse.ArgumentParser]:
    """Add every verb that `sammy` has too to the command line."""
    parsers: dict[str, argparse.ArgumentParser] = {
        name: verbs.add_parser(name, help=meaning) for name, meaning in AGENT_COMMANDS.items()
    }
    _add_token(parsers["token"])
    _add_events(parsers["events"])
    _add_metrics(parsers["metrics"])
    _add_logs(parsers["logs"])
    _add_outbox(parsers["outbox"])
    _add_debug_package(parsers["debug-package"])
    return list(parsers.values())


def join_negative_values(words: Sequence[str]) -> list[str]:
    """Return the words with `--since -5m` as `--since=-5m`, the only way argparse takes a value that looks so."""
    joined: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return [*joined, *words[index:]]
        if joined and NEGATIVE.fullmatch(word) and OPTION.fullmatch(joined[-1]):
            joined[-1] += f"={word}" if joined[-1].startswith("--") else word
        else:
            joined.append(word)
    return joined


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", metavar="ID", help="the token is this workspace's")
    parser.add_argument("action", choices=("set",), help="set: take a new one from standard input")


def _add_events(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--since", metavar="TIME", help=SINCE)
    add("--level", metavar="LEVEL", help=LEVEL)
    add("--type", metavar="TYPE", help="a type, or the beginning of types: contact. for all of that family")
    add("--run", metavar="ID", help="of one provisioning run")
    add("-n", "--limit", metavar="N", help="the newest N (default: 100, with --since or --run 10000)")
    add("-f", "--follow", action="store_true", help="go on with what comes, until interrupted")
    add("--json", action="store_true", help="print a list of objects; with --follow one object per line")


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help=f"{SINCE} (default: -1h)")
    parser.add_argument("--json", action="store_true", help="print a list of objects, one per sample, oldest first")


def _add_logs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--source", metavar="SOURCE", help="all (default), agent, sammy (the boot steps), systemd, cloud-init or docker"
    )
    add("--level", metavar="LEVEL", help=LEVEL)
    add("--container", metavar="NAME", help="a container's name or id; * and ? stand for any text and any letter")
    add("--since", metavar="TIME", help=SINCE)
    add("--until", metavar="TIME", help="not after; as --since")
    add("--search", metavar="TEXT", help="only messages that contain the text, in upper or lower case")
    add("-n", "--limit", metavar="N", help="the newest N (default: 200, with --follow 100; at most 1000)")
    add("--cursor", metavar="CURSOR", help="go on where an earlier answer ended, further into the past")
    add("-f", "--follow", action="store_true", help="go on with what comes, until interrupted")
    add("--json", action="store_true", help="print one JSON object; with --follow one object per line")
    add("--scrub", action="store_true", help="take out secrets, as in the debug package")


def _add_outbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "action",
        choices=("show", "requeue"),
        nargs="?",
        default="show",
        help="requeue: send again what was set aside",
    )
    parser.add_argument("id", nargs="*", help="with requeue: only these rows")


def _add_debug_package(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--output",
        metavar="FILE",
        help="write it there (default: sammy-debug-HOST-TIME.tar.gz, here)",
    )
    add("--pseudonyms", action="store_true", help="put stand-ins in the place of hosts and addresses")
    add("--most", metavar="MIB", help="let the package be no larger than so many MiB")
    add("--seconds", metavar="N", help="collect no longer than so many seconds (default: 40)")
    add("--json", action="store_true", help="print one JSON object")
