# SPDX-License-Identifier: Apache-2.0
"""The command with which the agent builds a debug package: its argv, and why it failed.

A process of its own: the agent's heartbeats do not wait for its compressing and redacting, its memory goes back to the
machine, and it can be stopped.
"""

from __future__ import annotations

import sys

from sammy_agent.base.runtime.process import Completed

PROGRAM = (sys.executable, "-m", "sammy_agent")


def argv(path: str, root: str, *options: str) -> list[str]:
    """Return the command that makes a package at `path`; `root` is put before all paths of the machine."""
    return [*PROGRAM, "debug-package", "--json", "--output", path, *([f"--root={root}"] if root else []), *options]


def failure(done: Completed) -> str:
    """Return why it made none, in its own words where it has some."""
    return done.failure.removeprefix("sammy-agent: ")
