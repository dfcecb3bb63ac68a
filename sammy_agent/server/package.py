# SPDX-License-Identifier: Apache-2.0
"""Has the debug package made by `sammy-agent debug-package`, a process of its own.

So the agent's heartbeats do not wait for its compressing and scrubbing, its memory goes back to the machine, and it can
be ended when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from sammy_agent.errors import AgentError

PROGRAM = [sys.executable, "-m", "sammy_agent"]
DEADLINE = 150.0  # seconds; collecting is bounded to 60, packing and the last look come on top
RETRY_AFTER = 30
NICE = 10
LONGEST_WORDS = 2000


class PackageFailed(AgentError):
    """The debug package was not made."""

    code = "debug-package-failed"


class Busy(AgentError):
    """One is being made already."""

    code = "debug-package-busy"


class Maker:
    """Makes one at a time. Of the loop's thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._for: object | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def make(self, path: str, who: object) -> None:
        """Make it at `path`.

        :param who: for whom; `give_up` with the same ends it.
        :raises Busy: another one is being made.
        :raises PackageFailed: in the words of the program.
        """
        if self._for is not None:
            raise Busy("a debug package is being made for somebody else; ask again")
        self._for = who
        try:
            await self._make(path)
        finally:
            self._for = self._process = None

    def give_up(self, who: object) -> None:
        """End what is being made for somebody."""
        if self._for is who and self._process is not None:
            _kill(self._process.pid)

    async def _make(self, path: str) -> None:
        words = [*PROGRAM, "debug-package", "--json", "--output", path]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                *(["--root", self._root] if self._root else []),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise PackageFailed(f"the debug package's program cannot be started: {error.strerror}") from error
        self._process = process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        try:
            _, said = await asyncio.wait_for(process.communicate(), DEADLINE)
        except asyncio.TimeoutError as error:
            raise PackageFailed(f"the debug package was not done within {DEADLINE:.0f} s") from error
        finally:
            _kill(process.pid)
        if process.returncode != 0:
            raise PackageFailed(_last_words(said) or f"its program ended with status {process.returncode}")


def _kill(pid: int) -> None:
    """End a program with all that it started; it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _last_words(said: bytes) -> str:
    lines = said.decode("utf-8", errors="replace").strip().splitlines()
    return (lines[-1] if lines else "").removeprefix("sammy-agent: ")[:LONGEST_WORDS]
