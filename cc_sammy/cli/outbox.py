# SPDX-License-Identifier: Apache-2.0
"""`sammy outbox`: the agent's own verb, where an operator looks for it first."""

from __future__ import annotations

import argparse
from typing import Any

from cc_sammy.cli import agents_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("outbox", help="what waits for the control plane, and what it refused")
    parser.add_argument("action", nargs="?", choices=["show", "requeue"], default="show",
                        help="requeue: send again what was set aside")  # fmt: skip
    parser.add_argument("id", nargs="*", help="with requeue: only these rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Become `sammy-agent outbox`."""
    words = ["outbox", arguments.action, *(["--json"] if arguments.json else []), *arguments.id]
    return agents_verb.become(words)
