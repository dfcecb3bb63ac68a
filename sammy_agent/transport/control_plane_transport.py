# SPDX-License-Identifier: Apache-2.0
"""The one transport of the agent: it outlives any change of the network, notified of it or not.

Every component has a Session of its own and all Sessions share this transport, mounted once (mounting is not
thread-safe, psf/requests #6366). Connections belong to a *generation*; `remount` puts a fresh one in its place in
one assignment. What was idle is closed at once, requests in flight end on the old one, and it is gone with the last
of them.

Without notification: a request whose data is not acknowledged fails within seconds (settings.SocketProfile), retires
its generation, and is replayed once on the next if that is safe: GET, HEAD, OPTIONS, PUT, DELETE, or any
request with the header `X-Sammy-Idempotency-Key` (or `Idempotency-Key`). Give beats and messages one.

Decisions, with their reasons:

- HTTP/1.1 only. With HTTP/2 all components share one connection, a timed-out stream does not close it, and a flush
  0.7 s late lost 549 of 600 heartbeats and never recovered; the same over HTTP/1.1 lost 62 to 124, and ours none.
- `trust_env` is off: a ~/.netrc would replace the node's token, and REQUESTS_CA_BUNDLE the configured authority.
  Proxies of the environment (HTTPS_PROXY, NO_PROXY, ...) are honoured, read anew for each request.
- Certificates are always verified; a refused one is neither replayed nor a reason to remount.
- A non-streamed body is read here, so that deadline and replay cover it too.
- There is no thread and no timer: deadlines live in the sockets, idle connections are closed at the next request.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.utils import get_environ_proxies

from sammy_agent import __version__
from sammy_agent.base.runtime.log_throttle import LogThrottle, also_suppressed
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.transport import dial, request_context, sockets
from sammy_agent.transport.errors import ResponseTooLong, TotalTimeout, TransportClosed, TransportError, describe
from sammy_agent.transport.pool import ConnectionRegistry, PooledAdapter
from sammy_agent.transport.request_context import RequestContext
from sammy_agent.transport.settings import TransportSettings

LOG = logging.getLogger(__name__)
LOG_SECONDS = 60.0  # the same reason for a remount is logged once in this time


class Remount(NamedTuple):
    """A generation was replaced: why, how many idle connections were closed, how many silent requests aborted."""

    reason: str
    idle_closed: int
    aborted: int


class ControlPlaneSession(requests.Session):
    """A component's Session. Closing it leaves the transport, which is not its own, open."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component
        self.trust_env = False
        self.headers["Accept-Encoding"] = "identity"  # insisted on: see response
        self.headers["User-Agent"] = f"sammy-agent/{__version__} {component}"

    def __repr__(self) -> str:
        return f"<ControlPlaneSession {self.component}>"

    def close(self) -> None:
        """Do nothing: other components' requests are on the same transport."""


class Generation:
    """The pools in use between two remounts."""

    def __init__(self, number: int, settings: TransportSettings, resolver: dial.Resolver, tls: ssl.SSLContext) -> None:
        self.number = number
        self.registries = tuple(ConnectionRegistry(name, settings, resolver) for name in ("prompt", "bulk"))
        self.prompt, self.bulk = (PooledAdapter(registry, tls) for registry in self.registries)

    def __repr__(self) -> str:
        return f"generation {self.number}: {', '.join(map(repr, self.registries))}"

    @property
    def idle(self) -> int:
        """Open connections no request is on."""
        return sum(registry.idle for registry in self.registries)

    @property
    def leased(self) -> int:
        """Connections with a request on them."""
        return sum(registry.leased for registry in self.registries)

    def retire(self) -> int:
        """Close the idle connections and keep none from now on; return how many were closed."""
        return sum(registry.close_idle(retire=True) for registry in self.registries)

    def abort_unresponsive(self) -> int:
        """Wake the requests whose peer is proven silent, probe the others; return how many were woken."""
        aborted = 0
        for sock in (sock for registry in self.registries for sock in registry.in_flight()):
            info = sockets.tcp_info(sock)
            if info is not None and info.is_unresponsive:
                sockets.abort(sock)
                aborted += 1
            else:
                sockets.probe(sock)
        return aborted

    def abort_all(self) -> None:
        """Wake every request in flight."""
        for sock in (sock for registry in self.registries for sock in registry.in_flight()):
            sockets.abort(sock)


class ControlPlaneTransport(BaseAdapter):
    """What all Sessions of the process send by. The mutable state is `_current`, `_retired` and `_closed`.

    :param lookup: finds a host's addresses in the place of socket.getaddrinfo.
    """

    def __init__(
        self,
        settings: TransportSettings = TransportSettings(),  # noqa: B008  (frozen)
        lookup: Callable[..., list[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.settings, self._lookup = settings, lookup
        self._tls = _tls_context(settings.ca_file)
        self._log_throttle = LogThrottle(LOG_SECONDS)
        self.remounted: Signal[Remount] = Signal()  # listeners must not wait: a request may be held up by them
        self._reset(1)
        _transports.add(self)

    def _reset(self, number: int) -> None:
        self._lock = threading.Lock()
        self._resolver = dial.Resolver(self._lookup)
        self._closed = False
        self._retired: weakref.WeakSet[Generation] = weakref.WeakSet()
        self._current = self._generation(number)

    def _generation(self, number: int) -> Generation:
        return Generation(number, self.settings, self._resolver, self._tls)

    def __repr__(self) -> str:
        retired = sum(generation.leased for generation in list(self._retired))
        old = f", {retired} leased of old" if retired else ""
        return f"<ControlPlaneTransport {self._current!r}{old}{', closed' if self._closed else ''}>"

    @property
    def generation(self) -> Generation:
        """The pools new requests go to."""
        return self._current

    def session(self, component: str) -> requests.Session:
        """Return a new Session for a component; the only way to one."""
        session = ControlPlaneSession(component)
        session.adapters.clear()
        for prefix in ("https://", "http://"):
            session.mount(prefix, self)
        return session

    def send(  # noqa: PLR0917  (requests' signature)
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send a request, if need be twice; raises what requests raises, TotalTimeout or TransportClosed.

        `timeout` may shorten or lengthen the settings' figures, in requests' forms; urllib3's Timeout(total=...)
        sets the total.
        """
        if verify is not True or cert is not None:
            raise TransportError(
                "a request may not bring its own certificates or go without checking them",
                "Set TransportSettings.ca_file",
            )
        context = request_context.make_context(request, stream, timeout, self.settings)
        generation = self._current
        options = {"stream": stream, "proxies": proxies or get_environ_proxies(request.url or "", no_proxy=None)}
        try:
            return self._send_once(generation, request, context, options)
        except requests.exceptions.RequestException as error:
            verdict = request_context.classify_failure(error, context)
            if verdict.remount:
                self._swap(f"a connection to {_host(request)} died ({describe(error)})", only=generation)
            if not verdict.replay or self._closed:
                raise self._translate_error(error, context) from error
            first = error
        try:
            return self._send_once(self._current, request, context, options)
        except requests.exceptions.RequestException as error:
            # The replay's failure alone ("refused", while a firewall was being rewritten) hid why there was one.
            final = self._translate_error(error, context)
            final.first_failure = first  # type: ignore[attr-defined]
            raise final from error

    def _send_once(
        self,
        generation: Generation,
        request: requests.PreparedRequest,
        context: RequestContext,
        options: dict[str, Any],
    ) -> requests.Response:
        """Send once on one generation; a non-streamed body is read as well."""
        if self._closed:
            raise TransportClosed("the transport is closed", request=request)
        context.start()
        adapter = generation.bulk if context.bulk else generation.prompt
        with request_context.use_context(context):
            timeout = (max(0.001, context.connect_until - time.monotonic()), context.header_seconds)
            response = adapter.send(request, timeout=timeout, **options)
            if not options["stream"]:
                _read(response, self.settings.max_response_bytes)
        sender: Any = response
        sender.connection = self  # auth hooks send again by it
        return response

    def _translate_error(
        self, error: requests.exceptions.RequestException, context: RequestContext
    ) -> requests.exceptions.RequestException:
        """Return the error as its kind: a deadline of ours surfaces in several guises."""
        if context.overdue:
            return TotalTimeout("the request took too long as a whole", request=error.request)
        if context.phase < request_context.Phase.SENT and isinstance(error, requests.exceptions.ReadTimeout):
            return requests.exceptions.ConnectTimeout("the TLS handshake took too long", request=error.request)
        return error

    def remount(self, reason: str) -> None:
        """Put fresh pools in the place of the old, because of `reason`; safe from any thread, at any time.

        Idle connections are closed, requests in flight go on unless their peer is proven silent: then they fail at
        once, and are replayed if they may be. Say it again a second later: silence takes time to prove.
        """
        self._swap(reason)

    def _swap(self, reason: str, only: Generation | None = None) -> None:
        """Remount; with `only`, nothing where that generation has been replaced: N failing threads remount once."""
        with self._lock:
            old = self._current
            if self._closed or (only is not None and only is not old):
                return
            self._current = self._generation(old.number + 1)
            self._retired.add(old)
        closed = old.retire()
        # One connection's death is no verdict on the others in flight: they have their own watch.
        aborted = sum(generation.abort_unresponsive() for generation in list(self._retired)) if only is None else 0
        remount = Remount(reason, closed, aborted)
        self._log(remount)
        self.remounted.emit(remount)

    def _log(self, remount: Remount) -> None:
        suppressed = self._log_throttle.allow(remount.reason)
        if suppressed is not None:
            LOG.info(
                "connections renewed: %s; %d idle closed, %d silent aborted, %r%s",
                *remount, self, also_suppressed(suppressed),
            )  # fmt: skip

    def close(self) -> None:
        """End everything: requests in flight fail, later ones raise TransportClosed."""
        with self._lock:
            self._closed = True
        for generation in (self._current, *list(self._retired)):
            generation.retire()
            generation.abort_all()

    def _after_fork(self) -> None:
        """Start afresh in a child: two processes on one TLS connection corrupt it. The locks may be held for ever."""
        self._reset(self._current.number + 1)


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TransportError(
            f"the authority file {ca_file} cannot be used: {error}", "It must be a readable PEM file"
        ) from error
    # urllib3 1.26 names no host to OpenSSL for an IP address and compares the certificate itself, if told so.
    context.check_hostname = not urllib3.__version__.startswith("1.")  # type: ignore[attr-defined]
    context.sslsocket_class = sockets.DeadlineTLSSocket
    return context


def _read(response: requests.Response, most: int) -> None:
    """Read the body as `response.content` would, up to a bound. ResponseTooLong, and what requests raises."""
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(64 * 1024):
        parts.append(part)
        size += len(part)
        if size > most:
            response.close()
            raise ResponseTooLong(f"the answer is longer than {most} bytes", request=response.request)
    response._content = b"".join(parts)  # what `content` itself keeps, and returns from now on


def _host(request: requests.PreparedRequest) -> str:
    return (request.url or "").split("/")[2] if "://" in (request.url or "") else "?"


_transports: weakref.WeakSet[ControlPlaneTransport] = weakref.WeakSet()


def _renew_in_child() -> None:
    for transport in list(_transports):
        transport._after_fork()


os.register_at_fork(after_in_child=_renew_in_child)
