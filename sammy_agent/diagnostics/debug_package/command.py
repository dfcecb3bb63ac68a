# SPDX-License-Identifier: Apache-2.0
"""The program that makes a package, as the agent runs it: its words, and how it says that it failed.

A process of its own, so that the agent's heartbeats do not wait for its compressing and scrubbing, its memory goes back
to the machine, and it can be ended.
"""

from __future__ import annotations

import sys

from sammy_agent.base.runtime.process import Completed

PROGRAM = (sys.executable, "-m", "sammy_agent")


def words(path: str, root: str, *options: str) -> list[str]:
    """Return the command that makes a package at `path`; `root` is put before all paths of the machine."""
    return [*PROGRAM, "debug-package", "--json", "--output", path, *([f"--root={root}"] if root else []), *options]


def failure(done: Completed) -> str:
    """Return why it made none, in its own words where it has some."""
    return done.failure.removeprefix("sammy-agent: ")
