# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent debug-package`: builds the package and prints where it is and what is missing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.paths import Paths

OTHER_COMPRESSIONS = (".bz2", ".lz4", ".tzst", ".xz", ".zip", ".zst")


def run(arguments: argparse.Namespace) -> int:
    """Build it; return the exit status. AgentError when it cannot be built."""
    from sammy_agent.diagnostics.debug_package import builder

    most, seconds = _number(arguments, "most"), _number(arguments, "seconds")
    name = "host" if arguments.pseudonyms else platform.node()
    default = f"sammy-debug-{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"
    path = os.path.abspath(arguments.output or default)
    if os.path.splitext(path)[1] in OTHER_COMPRESSIONS:
        raise AgentError(f"{path}: the debug package is compressed with gzip", "Name it .tar.gz")
    made = builder.build(
        path,
        Paths(arguments.root),
        seconds=seconds or builder.SECONDS,
        most_packed=int(most * 1024 * 1024) if most else None,
        with_pseudonyms=arguments.pseudonyms,
        say=_progress if sys.stderr.isatty() else lambda words: None,
    )
    if sys.stderr.isatty():
        _progress("")
    if arguments.json:
        print(json.dumps(asdict(made)))
        return 0
    lacking = [result for result in made.results if result.note]
    there = sum(result.bytes > 0 for result in made.results)
    print(f"{made.path}  {made.bytes / 1024:.0f} KiB, {there} files, {made.seconds} s, secrets redacted")
    width = max((len(result.name) for result in lacking), default=0)
    for result in lacking:
        print(f"  {result.name:<{width}}  {result.note}")
    return 0


def _number(arguments: argparse.Namespace, name: str) -> float | None:
    """Return an option's number. AgentError when it is not above 0."""
    text = getattr(arguments, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise AgentError(f"--{name} is {text}", "Write a number above 0")
    return number


def _progress(words: str) -> None:
    print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
