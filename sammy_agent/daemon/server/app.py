# SPDX-License-Identifier: Apache-2.0
"""The server at work: tornado in a thread of its own, with a bound on everything a stranger may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any

from tornado import httpserver, httputil, iostream, web

from sammy_agent.daemon.server.auth import Gate
from sammy_agent.daemon.server.base_handler import Unknown
from sammy_agent.daemon.server.connection_limit import Connections
from sammy_agent.daemon.server.context import Parts
from sammy_agent.daemon.server.debug_package_job import Maker
from sammy_agent.daemon.server.log_routes import PING_EVERY, Logs, LogStream, Readers
from sammy_agent.daemon.server.routes import DebugPackage, Events, Export, Health, SystemInformation
from sammy_agent.node.system_info import SystemInfo

LOG = logging.getLogger(__name__)
# TLS handshake and header together, and how long a connection may idle; who drips bytes is cut off all the same.
HEADER_SECONDS = 30.0
BODY_SECONDS = 15.0
MOST_HEADER, MOST_BODY, MOST_BUFFER = 16 * 1024, 64 * 1024, 1024 * 1024
START_DEADLINE = 30.0
Room = Connections[iostream.IOStream]


def application(parts: Parts, connections: Room) -> web.Application:
    """Return the routes."""
    given: dict[str, Any] = {"parts": parts, "gate": Gate(parts), "connections": connections}
    readers = Readers()
    routes: list[Any] = [
        (r"/health", Health, given),
        (r"/events", Events, given),
        (r"/events/export", Export, {**given, "store": parts.store, "name": "events"}),
        (r"/metrics/export", Export, {**given, "store": parts.metrics, "name": "metrics"}),
        (r"/system-info", SystemInformation, {**given, "info": SystemInfo()}),
        (r"/debug-package", DebugPackage, {**given, "maker": Maker(parts.paths.root)}),
        (r"/logs", Logs, {**given, "readers": readers}),
        (r"/logs/stream", LogStream, {**given, "readers": readers}),
    ]
    return web.Application(
        routes,
        default_handler_class=Unknown,
        default_handler_args=given,
        log_function=lambda handler: None,
        websocket_ping_interval=PING_EVERY,
        websocket_max_message_size=MOST_BODY,
    )


class Server(httpserver.HTTPServer):
    """Serves no more connections than it has room for."""

    room: Room

    def handle_stream(self, stream: iostream.IOStream, address: Any) -> None:
        """Take a connection, and let another go for it where there is no room."""
        stranger = self.room.came(stream)
        if stranger is not None:
            stranger.close()
        if stranger is not stream:
            super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Wait for a connection's first or next request."""
        self.room.waits(server_conn.stream)  # type: ignore[attr-defined]  # HTTP/1's has one
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self.room.went(server_conn.stream)  # type: ignore[attr-defined]
        super().on_close(server_conn)


class ServerThread(threading.Thread):
    """Runs the server until stopped.

    :param sockets: listening ones; stopping closes them.
    """

    def __init__(self, parts: Parts, sockets: Sequence[socket.socket], context: ssl.SSLContext) -> None:
        super().__init__(name="management", daemon=True)
        self._parts, self._sockets, self._context = parts, sockets, context
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._server: Server | None = None
        self.connections: Room = Connections()

    def begin(self) -> bool:
        """Start, and tell whether it serves, or still may on a machine that is slow."""
        self.start()
        self._begun.wait(START_DEADLINE)
        return self.is_alive()

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another certificate for connections from now on."""
        if self._loop is not None and self._server is not None:
            self._loop.call_soon_threadsafe(setattr, self._server, "ssl_options", context)

    def stop(self) -> None:
        """End it soon; does not wait."""
        if self._loop is not None and self._ending is not None:
            with contextlib.suppress(RuntimeError):  # ended already
                self._loop.call_soon_threadsafe(self._ending.set)

    def run(self) -> None:
        """Serve."""
        try:
            asyncio.run(self._serve())
        except Exception:
            LOG.exception("the management server ended; it is begun anew")
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        self._server = Server(
            application(self._parts, self.connections),
            ssl_options=self._context,
            idle_connection_timeout=HEADER_SECONDS,
            body_timeout=BODY_SECONDS,
            max_header_size=MOST_HEADER,
            max_body_size=MOST_BODY,
            max_buffer_size=MOST_BUFFER,
        )
        self._server.room = self.connections
        self._server.add_sockets(self._sockets)
        self._loop = asyncio.get_running_loop()
        self._begun.set()
        await self._ending.wait()
        self._server.stop()
        await self._server.close_all_connections()
