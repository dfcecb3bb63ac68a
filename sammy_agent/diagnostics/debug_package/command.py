# SPDX-License-Identifier: Apache-2.0
"""The program that makes a package, as the agent runs it: its words, and how it says that it failed.

A process of its own, so that the agent's heartbeats do not wait for its compressing and scrubbing, its memory goes back
to the machine, and it can be ended.
"""

from __future__ import annotations

import sys

PROGRAM = (sys.executable, "-m", "sammy_agent")
LONGEST_WORDS = 2000


def words(path: str, root: str, *options: str) -> list[str]:
    """Return the command that makes a package at `path`; `root` is put before all paths of the machine."""
    return [*PROGRAM, "debug-package", "--json", "--output", path, *([f"--root={root}"] if root else []), *options]


def failure(said: bytes, status: int) -> str:
    """Return why it made none, of what it said on its standard error."""
    lines = said.decode("utf-8", errors="replace").strip().splitlines()
    return (lines[-1] if lines else "").removeprefix("sammy-agent: ")[
        :LONGEST_WORDS
    ] or f"it ended with status {status}"
