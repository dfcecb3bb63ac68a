# SPDX-License-Identifier: Apache-2.0
"""The `sammy` command: what an operator types at three in the morning.

Exit statuses: 0 all well, 1 not well (failed, drift, invalid), 2 the command line is wrong, 3 nothing to show yet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from cc_sammy.cli import analyze, exec_agent, options, status, timings, validate
from cc_sammy.common import agent_commands
from cc_sammy.errors import SammyError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sammy", description="Shows and steers what cloud-init-sammy makes of this machine."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (status, timings, analyze, validate, options):
        module.add_parser(verbs)
    for verb in agent_commands.VERBS:
        verb.add_parser(verbs)
    from cc_sammy.firewall import commands as firewall

    firewall.add_parser(verbs)
    return parser


def _firewall(arguments: argparse.Namespace) -> int:
    from cc_sammy.firewall import commands as verbs
    from cc_sammy.firewall import settings_cache
    from cc_sammy.host.host import Host

    host = Host()
    return verbs.run(arguments, host, *settings_cache.load(host, os.environ))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    run: dict[str, Callable[[argparse.Namespace], int]] = {
        "status": status.run,
        "timings": timings.run,
        "analyze": analyze.run,
        "validate": validate.run,
        "options": options.run,
        "firewall": _firewall,
        **{verb.name: partial(exec_agent.become_same, verb) for verb in agent_commands.VERBS},
    }
    try:
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
