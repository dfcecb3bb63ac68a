# SPDX-License-Identifier: Apache-2.0
"""Sends what may be large to a client that may stop reading or be gone: in constant memory, with a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tornado import iostream, web

CHUNK = 64 * 1024
STALLED = 30.0  # seconds in which a client reads a chunk, or its connection is closed


async def send(handler: web.RequestHandler, more: Callable[[], Awaitable[bytes]]) -> str:
    """Send chunks until an empty one; return "" or why the client did not take them all.

    :param more: returns the next chunk.
    """
    try:
        while data := await more():
            handler.write(data)
            await asyncio.wait_for(handler.flush(), STALLED)
    except iostream.StreamClosedError:
        return "gone before the end"
    except asyncio.TimeoutError:
        break_off(handler)
        return f"client read nothing for {STALLED:.0f} s; connection closed"
    return ""


def break_off(handler: web.RequestHandler) -> None:
    """Close the connection: the only way to say that an answer which has begun is not whole."""
    handler.request.connection.stream.close()  # type: ignore[union-attr]  # HTTP/1's has one
