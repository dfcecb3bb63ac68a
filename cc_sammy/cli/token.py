# SPDX-License-Identifier: Apache-2.0
"""`sammy token set`: the agent's own verb, where an operator looks for it first."""

from __future__ import annotations

import argparse
from typing import Any

from cc_sammy.cli import agents_verb


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("token", help="give this node, or a workspace, another token")
    parser.add_argument("action", choices=["set"], help="set: take a new one from standard input")
    parser.add_argument("--workspace", metavar="ID", help="the token is this workspace's")


def run(arguments: argparse.Namespace) -> int:
    """Become `sammy-agent token set`; the token comes by standard input, never by the command line."""
    workspace = ["--workspace", arguments.workspace] if arguments.workspace else []
    return agents_verb.become(["token", arguments.action, *workspace])
