# SPDX-License-Identifier: Apache-2.0
"""The `sammy` command: what an operator types at three in the morning.

Exit statuses: 0 all well, 1 not well (failed, drift, invalid), 2 the command line is wrong, 3 nothing to show yet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from cc_sammy.cli import analyze, options, status, timings, validate
from cc_sammy.cli.exec_agent import exec_agent
from cc_sammy.common.agent_commands import AGENT_COMMANDS
from cc_sammy.errors import SammyError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sammy", description="Shows and steers what cloud-init-sammy makes of this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (status, timings, analyze, validate, options):
        module.add_parser(verbs)
    for name, meaning in AGENT_COMMANDS.items():
        verbs.add_parser(name, help=meaning, add_help=False)  # named here; `main` hands them to the agent
    from cc_sammy.firewall import commands as firewall

    firewall.add_parser(verbs)
    return parser


def _firewall(arguments: argparse.Namespace) -> int:
    from cc_sammy.firewall import commands as verbs
    from cc_sammy.firewall import settings_cache
    from cc_sammy.host.host import Host

    host = Host()
    return verbs.run(arguments, host, *settings_cache.load(os.environ))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    run: dict[str, Callable[[argparse.Namespace], int]] = {
        "status": status.run,
        "timings": timings.run,
        "analyze": analyze.run,
        "validate": validate.run,
        "options": options.run,
        "firewall": _firewall,
    }
    try:
        if words and words[0] in AGENT_COMMANDS:
            return exec_agent(words)
        arguments = _parser().parse_args(words)
        return run[arguments.verb](arguments)
    except SammyError as error:
        print(f"sammy: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"sammy: {error.filename}: {error.strerror}. Run it as root (sudo sammy …)", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
