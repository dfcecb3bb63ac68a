# SPDX-License-Identifier: Apache-2.0
"""Has the debug package made by its own program, one at a time, and ends that when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.diagnostics.debug_package import command

DEADLINE = 150.0  # seconds; collecting is bounded to 60, packing and the last look come on top
RETRY_AFTER = 30
NICE = 10
LAST_WISH = 3.0  # seconds


class PackageFailed(AgentError):
    """The debug package was not made."""

    code = Code.DEBUG_PACKAGE_FAILED


class GivenUp(PackageFailed):
    """Whom it was made for is gone."""


class Busy(AgentError):
    """One is being made already."""

    code = Code.DEBUG_PACKAGE_BUSY


class Maker:
    """Makes one at a time. Of the loop's thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._for: object | None = None
        self._gone: asyncio.Future[None] | None = None

    async def make(self, path: str, who: object) -> None:
        """Make it at `path`.

        :param who: for whom; `give_up` with the same ends it.
        :raises Busy: another one is being made.
        :raises GivenUp: it was given up.
        :raises PackageFailed: in the words of the program.
        """
        if self._for is not None:
            raise Busy("a debug package is being made for somebody else; ask again")
        self._for, self._gone = who, asyncio.get_running_loop().create_future()
        try:
            await self._make(path, self._gone)
        finally:
            self._for = self._gone = None

    def give_up(self, who: object) -> None:
        """End what is being made for somebody."""
        if self._for is who and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def _make(self, path: str, gone: asyncio.Future[None]) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.words(path, self._root),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise PackageFailed(f"the debug package's program cannot be started: {error.strerror}") from error
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        ending = asyncio.ensure_future(process.communicate())
        awaited: set[asyncio.Future[Any]] = {ending, gone}
        try:
            await asyncio.wait(awaited, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the server ends
            _signal(process.pid, signal.SIGKILL)
            raise
        in_time = ending.done()
        await _end(process.pid, ending)
        if gone.done():
            raise GivenUp("nobody waits for the debug package any more")
        if not in_time:
            raise PackageFailed(f"the debug package was not done within {DEADLINE:.0f} s")
        if process.returncode != 0:
            raise PackageFailed(command.failure(ending.result()[1], process.returncode or 0))


async def _end(pid: int, ending: asyncio.Future[tuple[bytes, bytes]]) -> None:
    """End a program, which may end its own ones first, and whatever it leaves behind."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        if not ending.done():
            _signal(pid, sign)
            await asyncio.wait({ending}, timeout=LAST_WISH)
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, sign: signal.Signals) -> None:
    """Signal a program with all of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sign)
