# SPDX-License-Identifier: Apache-2.0
"""The `sammy` command: what an operator types at three in the morning.

Exit statuses: 0 all well, 1 not well (failed, drift, invalid), 2 the command line is wrong, 3 nothing to show yet.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cc_sammy.cli.exec_agent import exec_agent
from cc_sammy.common.agent_commands import AGENT_COMMANDS
from cc_sammy.errors import SammyError

# a verb's module has add_parser and run; no other verb's is imported with it
MODULES: Mapping[str, str] = {
    **{name: f"cc_sammy.cli.{name}" for name in ("status", "timings", "analyze", "validate", "options")},
    "firewall": "cc_sammy.firewall.commands",
}


def _parser(verb: str = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command line, or of as much as one verb needs."""
    parser = argparse.ArgumentParser(
        prog="sammy", description="Shows and steers what cloud-init-sammy makes of this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in (verb,) if verb in MODULES else MODULES:
        _module(name).add_parser(verbs)
    if verb not in MODULES:
        for name, meaning in AGENT_COMMANDS.items():
            verbs.add_parser(name, help=meaning, add_help=False)  # for --help alone; `main` hands them to the agent
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(MODULES[verb])


def _run(arguments: argparse.Namespace) -> int:
    verb = _module(arguments.verb)
    if arguments.verb != "firewall":
        run: Callable[[argparse.Namespace], int] = verb.run
        return run(arguments)
    from cc_sammy.firewall import commands, settings_cache
    from cc_sammy.host.host import Host

    return commands.run(arguments, Host(), *settings_cache.load(os.environ))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    try:
        return exec_agent(words) if first in AGENT_COMMANDS else _run(_parser(first).parse_args(words))
    except SammyError as error:
        print(f"sammy: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"sammy: {error.filename}: {error.strerror}. Run it as root (sudo sammy …)", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
