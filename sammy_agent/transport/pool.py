# SPDX-License-Identifier: Apache-2.0
"""urllib3's pools and connections with the few seams the transport needs; works on 1.26 and 2.x alike.

Seams used, unchanged over all of these: `_new_conn`, `_get_conn`, `_put_conn` of a pool, `_new_conn`, `connect`,
`putrequest`, `getresponse`, `close` of a connection, `pool_classes_by_scheme` of a manager. What they add:

- a ConnectionRegistry per pool: which connections are idle, which are leased; a retired one keeps nothing that is
  released. Pools are never closed: urllib3 raises ClosedPoolError in whoever holds a pool it is about to ask (1.26
  even from clear()).
- connecting by dial.connect, the context's deadlines on the socket, and the acknowledgment watch.
"""

from __future__ import annotations

import errno
import functools
import socket
import ssl
import threading
import time
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from sammy_agent.transport import dial, request_context, sockets
from sammy_agent.transport.request_context import Phase
from sammy_agent.transport.response import GuardedResponse
from sammy_agent.transport.settings import TransportSettings

# A handshake that the peer or a firewall breaks off is tried again within the connect time, not for ever.
MAX_HANDSHAKES = 3


class ConnectionRegistry:
    """The connections of one pool in one generation. The mutable state is `_idle`, `_leased` and `retired`.

    References are weak: an answer that its reader drops unread must not keep its socket.
    """

    def __init__(self, name: str, settings: TransportSettings, resolver: dial.Resolver) -> None:
        self.name, self.settings, self.resolver = name, settings, resolver
        self.retired = False
        self._lock = threading.Lock()
        self._idle: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._leased: weakref.WeakSet[Any] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"{self.name} {self.idle} idle {self.leased} leased"

    @property
    def idle(self) -> int:
        """Connections open and unused."""
        with self._lock:
            return sum(1 for connection in list(self._idle) if connection.sock is not None)

    @property
    def leased(self) -> int:
        """Connections a request is on."""
        with self._lock:
            return len(self._leased)

    def lease(self, connection: Any) -> None:
        """Hand a connection to a request. Nobody else closes it from now on."""
        with self._lock:
            self._idle.pop(connection, None)
            self._leased.add(connection)

    def release(self, connection: Any) -> bool:
        """Take a connection back; False when it is not to be kept."""
        with self._lock:
            self._leased.discard(connection)
            if self.retired or connection.sock is None or getattr(connection.sock, "cut_short", False):
                return False
            self._idle[connection] = time.monotonic()
            return True

    def unregister(self, connection: Any) -> None:
        """Unregister a closed connection."""
        with self._lock:
            self._idle.pop(connection, None)
            self._leased.discard(connection)

    def close_idle(self, older_than: float = 0.0, *, retire: bool = False) -> int:
        """Close what has been idle for so many seconds; return how many that were."""
        closed = 0
        before = time.monotonic() - older_than
        with self._lock:  # closing is quick, and outside the lock a request could take the connection meanwhile
            self.retired = self.retired or retire
            for connection, since in list(self._idle.items()):
                if since <= before:
                    self._idle.pop(connection, None)
                    closed += connection.sock is not None
                    connection.close_socket()
        return closed

    def in_flight(self) -> list[socket.socket]:
        """Return the sockets of the leased connections."""
        with self._lock:
            held = [getattr(connection, "sock", None) for connection in list(self._leased)]
        return [sock for sock in held if isinstance(sock, socket.socket)]


class _Connection:
    """Mixin of both kinds of connection."""

    response_class: Any = GuardedResponse

    registry: ConnectionRegistry
    sock: Any
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        context = request_context.current()
        until = context.connect_until if context else time.monotonic() + self.registry.settings.connect_seconds
        again = context.retry_interval_seconds if context else self.registry.settings.retry_interval_seconds
        host = getattr(self, "_dns_host", self.host).strip("[]")
        try:
            sock = dial.connect(self.registry.resolver.addresses(host, self.port, until), until, again)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in time: {error}") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection to {self.host}: {error.strerror or error}") from error  # type: ignore[arg-type]
        if context:
            context.phase = Phase.CONNECTING
            sockets.apply(sock, context.profile)
        sock.settimeout(max(0.001, until - time.monotonic()))  # TLS and a proxy's tunnel share the connect time
        return sock

    def connect(self) -> None:
        """Connect, with TLS where it belongs; a handshake that is broken off is retried."""
        context = request_context.current()
        for left in range(MAX_HANDSHAKES - 1, -1, -1):
            try:
                super().connect()  # type: ignore[misc]
                break
            except (
                ConnectionResetError,
                ConnectionAbortedError,
                BrokenPipeError,
                ssl.SSLEOFError,
                ssl.SSLZeroReturnError,
            ):
                self.close()
                if (
                    not left
                    or context is None
                    or time.monotonic() + context.retry_interval_seconds >= context.connect_until
                ):
                    raise
                time.sleep(context.retry_interval_seconds)
        self._bind()

    def _bind(self) -> None:
        """Give the socket the deadline and the profile of the context it serves."""
        context = request_context.current()
        if context is None or self.sock is None:
            return
        context.phase = Phase.SENT
        sockets.apply(self.sock, context.profile)
        if isinstance(self.sock, sockets.DeadlineMixin):
            self.sock.set_deadline(context.until, send_timeout=context.header_seconds)

    def putrequest(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a request, on a connection new or old."""
        self._bind()
        return super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the answer; where a replay is safe, a peer that acknowledges nothing is not waited for."""
        context = request_context.current()
        limit = context.profile.acknowledge if context and context.replayable else None
        if limit is not None and self.sock is not None and not sockets.wait_acknowledged(self.sock, limit):
            self.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, f"the peer acknowledged nothing for {limit} s")
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        """Close, and unregister."""
        self.registry.unregister(self)
        self.close_socket()

    def close_socket(self) -> None:
        """Close; for the registry itself, which holds its lock."""
        super().close()  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Tell whether the kernel knows nothing against the idle socket."""
        info = sockets.tcp_info(self.sock)
        return info is None or info.is_clean


class _HTTP(_Connection, HTTPConnection):
    pass


class _HTTPS(_Connection, HTTPSConnection):
    pass


class _Pool:
    """Mixin of both kinds of pool."""

    def __init__(self, *args: Any, registry: ConnectionRegistry, **kwargs: Any) -> None:
        self.registry = registry
        super().__init__(*args, **kwargs)

    def _new_conn(self) -> Any:
        connection = super()._new_conn()  # type: ignore[misc]
        connection.registry = self.registry
        return connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        self.registry.close_idle(self.registry.settings.idle_seconds)
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        self.registry.lease(connection)
        if connection.sock is not None and not connection.is_usable():
            connection.close()
            if getattr(connection, "auto_open", 1) == 0:  # 1.26: a tunnel's connection cannot be opened again
                connection = self._new_conn()
            self.registry.lease(connection)
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None and not self.registry.release(connection):
            connection.close()
            connection = None
        super()._put_conn(connection)  # type: ignore[misc]

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """Send; a body shorter than announced is an error on 1.26 too, where it passes for whole by default."""
        kwargs.setdefault("enforce_content_length", True)
        return super().urlopen(*args, **kwargs)  # type: ignore[misc]


class _HTTPPool(_Pool, HTTPConnectionPool):
    ConnectionCls = _HTTP


class _HTTPSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _HTTPS


class PooledAdapter(HTTPAdapter):
    """requests' own adapter over a registry's pools, with one TLS context for all connections.

    A context of its own for each connection costs 17 ms and 0.7 MB: the authorities are read again each time.
    """

    def __init__(self, registry: ConnectionRegistry, tls: ssl.SSLContext) -> None:
        self.registry, self._tls = registry, tls
        self._classes = {
            "http": functools.partial(_HTTPPool, registry=registry),
            "https": functools.partial(_HTTPSPool, registry=registry),
        }
        super().__init__(pool_maxsize=registry.settings.pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools' manager."""
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the manager of one proxy's pools."""
        if proxy.lower().startswith("socks"):
            return super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        if not known:
            manager.pool_classes_by_scheme = self._classes
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the authorities to the one context: loading them into it again is not thread-safe.

        Debian's urllib3 names the system's bundle in every pool: it would be trusted beside `ca_file`, and cost 20 ms
        a connection.
        """
        conn.cert_reqs = "CERT_REQUIRED" if url.lower().startswith("https") else "CERT_NONE"
        conn.ca_certs = conn.ca_cert_dir = conn.ca_cert_data = None
