# SPDX-License-Identifier: Apache-2.0
"""The `sammy-agent` command: the unit's process, its token, and the embedded control plane.

Exit statuses: 0 done, 1 could not be done, 2 the command line is wrong, 3 there is nothing to show. Imports are late:
an idle agent must not carry a web server in its memory.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError
from sammy_agent.cli import arguments as command_line
from sammy_agent.control_plane.cli import main as control_plane


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sammy-agent", description="The agent of a VM for AI coding agents.")
    parser.add_argument("--version", action="version", version=f"sammy-agent {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    running = verbs.add_parser("run", help="run in the foreground, as the unit does")
    for one in (running, *command_line.add_parsers(verbs)):
        one.add_argument("--root", default="", metavar="DIR", help="put DIR before all paths (for tests and images)")
    control_plane.add_parsers(verbs)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from sammy_agent.daemon import main as main_module

    return main_module.run(arguments.root)


def _token(arguments: argparse.Namespace) -> int:
    from sammy_agent.cli import token

    return token.set_token(sys.stdin, arguments.root, arguments.workspace)


def _outbox(arguments: argparse.Namespace) -> int:
    from sammy_agent.cli import outbox as verb

    return verb.run(arguments)


def _events(arguments: argparse.Namespace) -> int:
    from sammy_agent.cli import events as verb

    return verb.run(arguments)


def _metrics(arguments: argparse.Namespace) -> int:
    from sammy_agent.cli import metrics as verb

    return verb.run(arguments)


def _logs(arguments: argparse.Namespace) -> int:
    from sammy_agent.base.runtime import process

    process.exit_on_signals()
    from sammy_agent.cli import logs as verb

    return verb.run(arguments)


def _debug_package(arguments: argparse.Namespace) -> int:
    from sammy_agent.base.runtime import process

    process.exit_on_signals()
    from sammy_agent.cli import debug_package as verb

    return verb.run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(command_line.join_negative_values(sys.argv[1:] if argv is None else argv))
    run = {
        "run": _run,
        "token": _token,
        "outbox": _outbox,
        "debug-package": _debug_package,
        "events": _events,
        "metrics": _metrics,
        "logs": _logs,
    }
    try:
        return run.get(arguments.verb, control_plane.run)(arguments)
    except AgentError as error:
        print(f"sammy-agent: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"sammy-agent: {error.filename}: {error.strerror}. Run it as root (sudo sammy-agent …)", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
