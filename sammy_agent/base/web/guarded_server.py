# SPDX-License-Identifier: Apache-2.0
"""The server both ports stand on: a bound on connections, on times and sizes, and a body's framing judged beforehand.

The agent's port had these bounds and the control plane, which faces the net and a fleet, had none: 1,100 connections
that said nothing kept every node out, at half a core and 338 MB of log.
"""

from __future__ import annotations

import logging
import resource
import ssl
import sys
from typing import Any

from tornado import httpserver, httputil, iostream, web

from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.base.web.framing import FramingGuard
from sammy_agent.base.web.json_handler import throttle_library_logs

# TLS handshake and header together, and how long a connection may idle; who drips bytes is cut off all the same.
HEADER_TIMEOUT = 30.0
BODY_TIMEOUT = 15.0
MAX_HEADER_BYTES, MAX_BUFFER_BYTES = 16 * 1024, 1024 * 1024
# Descriptors that are not for connections: databases, listeners, pipes, an answer to a node each.
RESERVED_DESCRIPTORS = 64
Limiter = ConnectionLimiter[iostream.IOStream]
LOG = logging.getLogger(__name__)


class GuardedServer(httpserver.HTTPServer):
    """tornado's server behind the guards; `guarded_server` makes one."""

    connection_limiter: Limiter

    def handle_stream(self, stream: iostream.IOStream, address: Any) -> None:
        """Take a connection, and close another one where the limit is reached."""
        stranger = self.connection_limiter.accept(stream)
        if stranger is not None:
            stranger.close()
        if stranger is not stream:
            super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Wait for a connection's first or next request."""
        self.connection_limiter.idle(server_conn.stream)  # type: ignore[attr-defined]  # HTTP/1's has one
        return FramingGuard(request_conn, super().start_request(server_conn, request_conn))

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        self.connection_limiter.closed(server_conn.stream)  # type: ignore[attr-defined]
        super().on_close(server_conn)


def guarded_server(
    application: web.Application,
    tls_context: ssl.SSLContext,
    limiter: Limiter,
    *,
    max_body_bytes: int,
    header_timeout: float | None = None,
    body_timeout: float | None = None,
) -> GuardedServer:
    """Return a server; its routes tell the limiter who has proven himself.

    :param max_body_bytes: a longer body is refused unread.
    :param header_timeout: seconds for handshake and header, and for how long a connection may idle.
    :param body_timeout: seconds for a request's body, from its header on.
    """
    server = GuardedServer(
        application,
        ssl_options=tls_context,
        idle_connection_timeout=header_timeout or HEADER_TIMEOUT,
        body_timeout=body_timeout or BODY_TIMEOUT,
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=max_body_bytes,
        max_buffer_size=max(MAX_BUFFER_BYTES, max_body_bytes),
    )
    server.connection_limiter = limiter  # not by its constructor: tornado's takes no arguments of others
    throttle_library_logs()
    return server


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files to the hard one; return how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError) as error:  # a sandbox may forbid it, or hold the hard one above what the kernel has
        LOG.warning("the limit of open files stays at %d: %s", soft, error)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(16, soft - RESERVED_DESCRIPTORS)
