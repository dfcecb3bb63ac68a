# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent debug-package`: makes the package and says where it is and what it lacks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from typing import Any

from sammy_agent.places import Places


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "debug-package", help="gather what tells why this node is as it is, without its secrets"
    )
    parser.add_argument("--output", metavar="FILE", help="write it there (default: sammy-debug-HOST-TIME.tar.gz, here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Make it; return the exit status. AgentError when it cannot be made."""
    from sammy_agent.debug_package import package

    default = f"sammy-debug-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"
    path = os.path.abspath(arguments.output or default)
    made = package.make(path, Places(arguments.root), say=_progress if sys.stderr.isatty() else lambda words: None)
    if sys.stderr.isatty():
        _progress("")
    if arguments.json:
        print(json.dumps(asdict(made)))
        return 0
    lacking = [result for result in made.results if result.note]
    there = sum(result.bytes > 0 for result in made.results)
    print(f"{made.path}  {made.bytes / 1024:.0f} KiB, {there} files, {made.seconds} s, secrets scrubbed")
    width = max((len(result.name) for result in lacking), default=0)
    for result in lacking:
        print(f"  {result.name:<{width}}  {result.note}")
    return 0


def _progress(words: str) -> None:
    print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
