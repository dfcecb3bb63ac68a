# SPDX-License-Identifier: Apache-2.0
"""Builds the debug package in a program of its own, one at a time, and ends it when its client is gone."""

from __future__ import annotations

import asyncio
from typing import Any

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime import process_async
from sammy_agent.diagnostics.debug_package import launcher

DEADLINE = 150.0  # seconds; collecting is bounded to 60, packing and the last look come on top
RETRY_AFTER = 30
NICE = 10


class PackageFailed(AgentError):
    """The debug package was not made."""

    code = Code.DEBUG_PACKAGE_FAILED


class Cancelled(PackageFailed):
    """The client that it was made for is gone."""


class Busy(AgentError):
    """One is being made already."""

    code = Code.DEBUG_PACKAGE_BUSY


class DebugPackageJob:
    """Builds one at a time. Of the loop's thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._for: object | None = None
        self._gone: asyncio.Future[None] | None = None

    async def make(self, path: str, who: object) -> None:
        """Make it at `path`.

        :param who: for whom; `cancel` with the same ends it.
        :raises Busy: another one is being made.
        :raises Cancelled: it was given up.
        :raises PackageFailed: in the words of the program.
        """
        if self._for is not None:
            raise Busy("another debug package is being made; try again later")
        self._for, self._gone = who, asyncio.get_running_loop().create_future()
        try:
            await self._build(path, self._gone)
        finally:
            self._for = self._gone = None

    def cancel(self, who: object) -> None:
        """Cancel what is being built for a client."""
        if self._for is who and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def _build(self, path: str, gone: asyncio.Future[None]) -> None:
        running = asyncio.ensure_future(process_async.run(launcher.argv(path, self._root), DEADLINE, nice=NICE))
        awaited: set[asyncio.Future[Any]] = {running, gone}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not running.done():  # the client is gone, or the server ends
                running.cancel()
                await asyncio.wait({running})
        if gone.done():
            raise Cancelled("the client of the debug package is gone")
        done = running.result()
        if done.status is None:
            raise PackageFailed(f"the debug package's program cannot be started: {done.failure}")
        if done.problem:
            raise PackageFailed(f"the debug package {done.problem}")
        if not done.ok:
            raise PackageFailed(launcher.failure(done))
