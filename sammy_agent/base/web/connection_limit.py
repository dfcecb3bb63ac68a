# SPDX-License-Identifier: Apache-2.0
"""How many connections there may be, and which one is closed when there is no room. Decisions without I/O.

A limit alone would let a hundred idle strangers shut the control plane out. So the one that has waited longest without
authentication makes room; those on which a request of the control plane is being answered stay.
"""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_CONNECTIONS = 128
Connection = TypeVar("Connection")


class ConnectionLimiter(Generic[Connection]):
    """The open connections. Of one thread."""

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self._limit = limit
        self._idle: dict[Connection, None] = {}  # in the order they began to wait
        self._authenticated: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._idle) + len(self._authenticated)

    def accept(self, new: Connection) -> Connection | None:
        """Register a connection; return the one to close to stay within the limit (possibly the new one), or None."""
        to_close: Connection | None = None
        if len(self) >= self._limit:
            to_close = next(iter(self._idle), new)
            self._idle.pop(to_close, None)
        if to_close is not new:
            self._idle[new] = None
        return to_close

    def idle(self, connection: Connection) -> None:
        """Note that the connection waits for a request."""
        if connection in self._authenticated:
            self._authenticated.discard(connection)
            self._idle[connection] = None

    def authenticated(self, connection: Connection) -> None:
        """Note that a request of the control plane came on the connection."""
        if connection in self._idle:
            del self._idle[connection]
            self._authenticated.add(connection)

    def closed(self, connection: Connection) -> None:
        """Unregister a closed connection."""
        self._idle.pop(connection, None)
        self._authenticated.discard(connection)
