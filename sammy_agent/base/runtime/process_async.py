# SPDX-License-Identifier: Apache-2.0
"""`process.run` for an event loop: the same program, waited for in a thread, stopped when its task is cancelled.

One way to run a program, not two that differ in what they do at a deadline; asyncio's own child watcher takes a thread
for each program as well. A module of its own because an idle agent does not load asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sammy_agent.base.runtime.process import Completed, Program


async def run(
    argv: Sequence[str], deadline: float, *, environment: Mapping[str, str] | None = None, nice: int = 0
) -> Completed:
    """Run a program to its end, `deadline` seconds at most; cancelled, return only when nothing of it runs any more."""
    program = Program(argv, deadline, environment=environment, nice=nice)
    waiting = asyncio.get_running_loop().run_in_executor(None, program.wait)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        program.stop()
        await asyncio.wait({waiting})
        raise
