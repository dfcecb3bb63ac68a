# SPDX-License-Identifier: Apache-2.0
"""The server: tornado in a thread of its own, with a limit on everything that a stranger may use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any

from tornado import web

from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.base.web.guarded_server import GuardedServer, Limiter, guarded_server
from sammy_agent.daemon.server.auth import Authenticator
from sammy_agent.daemon.server.base_handler import UnknownRoute
from sammy_agent.daemon.server.context import ServerContext
from sammy_agent.daemon.server.debug_package_job import DebugPackageJob
from sammy_agent.daemon.server.log_routes import PING_INTERVAL, Logs, LogStream, Readers
from sammy_agent.daemon.server.routes import DebugPackage, Events, Export, Health, SystemInformation
from sammy_agent.node.system_info import SystemInfo

LOG = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 * 1024
START_DEADLINE = 30.0


def application(context: ServerContext, connections: Limiter) -> web.Application:
    """Return the routes."""
    given: dict[str, Any] = {"context": context, "authenticator": Authenticator(context), "connections": connections}
    readers = Readers()
    routes: list[Any] = [
        (r"/health", Health, given),
        (r"/events", Events, given),
        (r"/events/export", Export, {**given, "store": context.store, "name": "events"}),
        (r"/metrics/export", Export, {**given, "store": context.metrics, "name": "metrics"}),
        (r"/system-info", SystemInformation, {**given, "info": SystemInfo()}),
        (r"/debug-package", DebugPackage, {**given, "job": DebugPackageJob(context.paths.root)}),
        (r"/logs", Logs, {**given, "readers": readers}),
        (r"/logs/stream", LogStream, {**given, "readers": readers}),
    ]
    return web.Application(
        routes,
        default_handler_class=UnknownRoute,
        default_handler_args=given,
        log_function=lambda handler: None,
        websocket_ping_interval=PING_INTERVAL,
        websocket_max_message_size=MAX_BODY_BYTES,
    )


class ServerThread(threading.Thread):
    """Runs the server until stopped.

    :param sockets: listening ones; stopping closes them.
    """

    def __init__(self, context: ServerContext, sockets: Sequence[socket.socket], tls_context: ssl.SSLContext) -> None:
        super().__init__(name="management", daemon=True)
        self._context, self._sockets, self._tls_context = context, sockets, tls_context
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._server: GuardedServer | None = None
        self.connections: Limiter = ConnectionLimiter()

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
            LOG.exception("the management server ended; it is restarted")
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        routes = application(self._context, self.connections)
        self._server = guarded_server(routes, self._tls_context, self.connections, max_body_bytes=MAX_BODY_BYTES)
        self._server.add_sockets(self._sockets)
        self._loop = asyncio.get_running_loop()
        self._begun.set()
        await self._ending.wait()
        self._server.stop()
        await self._server.close_all_connections()
