# SPDX-License-Identifier: Apache-2.0
"""`sammy debug-package`: the agent's own verb, where an operator looks for it first."""

from __future__ import annotations

import argparse
from typing import Any

from cc_sammy.cli import agents_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("debug-package", help="gather what tells why this node is as it is, without its secrets")
    parser.add_argument("--output", metavar="FILE", help="write it there (default: sammy-debug-HOST-TIME.tar.gz, here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Become `sammy-agent debug-package`."""
    words = ["debug-package"]
    if arguments.output:
        words += ["--output", arguments.output]
    return agents_verb.become([*words, *(["--json"] if arguments.json else [])])
