# SPDX-License-Identifier: Apache-2.0
"""Holds the agent's port at the price of two sockets; what serves is loaded by the first connection.

No certificate, a port that is taken, a key that does not fit: each is said in the status and tried again, and nothing
else of the agent waits for it. Until there is a certificate the port is held but refuses connections.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import shutil
import socket
import ssl
from typing import TYPE_CHECKING, Any

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.server.context import ServerContext

if TYPE_CHECKING:
    from sammy_agent.daemon.server.app import ServerThread

LOG = logging.getLogger(__name__)
BACKLOG = 64
CERTIFICATE_POLL_SECONDS = 30.0  # seconds between two looks at the certificate; whoever installs one wakes us
TCP_USER_TIMEOUT_MS = 30_000  # ms without an acknowledgment after which a peer is gone
FAMILIES = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
WAITING = Problem(
    Code.NO_CERTIFICATE,
    "the node has no TLS certificate yet, so no request is served",
    "It comes with the control plane's answer; see `contact`",
)

GONE = Problem(
    Code.CERTIFICATE_GONE, "the node's TLS certificate is gone; the one in memory is served on", "Put it back"
)


class Listener(Worker):
    """The management server's task: one port, its certificate, and the thread that serves once it is needed."""

    def __init__(self, context: ServerContext, port: int, record: RecordEvent = discard_event) -> None:
        super().__init__("management-server")
        self._context, self._port, self._record = context, port, record
        self._sockets: list[socket.socket] = []
        self._listens = False
        self._tls_context: ssl.SSLContext | None = None
        self._stamp: tuple[int, ...] | None = None
        self._thread: ServerThread | None = None
        self._problem: Problem | None = None
        self._backoff = Backoff()
        self._wakeup_fd = -1  # wakes the thread while it waits for a connection; opened at the start

    def __repr__(self) -> str:
        return f"<Listener {self._port} {self._state()}>"

    def start(self) -> None:
        """Begin to serve. OSError: this process has no descriptor left."""
        # what a kill left of a package that was being made
        shutil.rmtree(self._context.paths.outgoing, ignore_errors=True)
        if self._wakeup_fd == -1:
            self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        super().start()

    def wake(self) -> None:
        """Look at the certificate now, also while a connection is waited for."""
        super().wake()
        self._ring()

    def _ring(self) -> None:
        if self._wakeup_fd != -1:
            os.eventfd_write(self._wakeup_fd, 1)

    def stop(self) -> None:
        """Serve no longer."""
        super().stop()
        self._ring()
        if self._thread is not None:
            self._thread.stop()

    def run_once(self) -> float:
        """Take the next step towards serving, or see that all is well."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakeup_fd)
        try:
            self._hold_port()
            if not self._look_at_certificate():
                return CERTIFICATE_POLL_SECONDS
            self._listen()
        except OSError as error:
            self._set_problem(_taken(self._port, error))
            self._release()
            return self._backoff.next_delay()
        self._backoff.reset()
        if self._thread is not None and self._thread.is_alive():
            return CERTIFICATE_POLL_SECONDS
        self._thread = None
        if self._wait_for_connection():
            return self._load()
        return 0.0

    def snapshot(self) -> dict[str, Any]:
        """Return the `server` part of the socket's status."""
        thread = self._thread
        return {
            "state": self._state(),
            "port": self._port,
            "families": sorted("ipv6" if one.family == socket.AF_INET6 else "ipv4" for one in self._sockets),
            "connections": len(thread.connections) if thread else 0,
            "problem": self._problem.to_json() if self._problem else None,
        }

    def _state(self) -> str:
        if not self._listens:
            return "off"
        return "serving" if self._thread is not None and self._thread.is_alive() else "listening"

    def _hold_port(self) -> None:
        """Bind, in each family that the machine has. OSError when the port is somebody else's."""
        if self._sockets:
            return
        for family, address in FAMILIES.items():
            try:
                self._sockets.append(_bind(family, address, self._port))
            except OSError as error:
                if error.errno not in NO_SUCH_FAMILY:
                    raise
        if not self._sockets:
            raise OSError(errno.EADDRNOTAVAIL, "the machine has no internet addresses")

    def _look_at_certificate(self) -> bool:
        """Load it when it is new; tell whether there is one that can be served with."""
        stamp = _stamp(self._context.paths)
        if stamp is None:
            self._set_problem(WAITING if self._tls_context is None else GONE)
            return self._tls_context is not None
        if stamp != self._stamp:
            try:
                context = tls_context(self._context.paths)
            except (OSError, ssl.SSLError) as error:
                # between the two renames of a renewal they do not fit; seen again at once
                self._set_problem(_unusable(self._context.paths, error))
                return self._tls_context is not None
            self._tls_context, self._stamp = context, stamp
            if self._thread is not None:
                self._thread.renew(context)
        self._set_problem(None)
        return True

    def _listen(self) -> None:
        if not self._listens:
            for one in self._sockets:
                one.listen(BACKLOG)
            self._listens = True
            LOG.info("the management server listens on port %d", self._port)
            self._record(kinds.SERVER_LISTENING, f"port {self._port} is open", detail={"port": self._port})

    def _wait_for_connection(self) -> bool:
        poll = select.poll()
        for fd in (self._wakeup_fd, *(one.fileno() for one in self._sockets)):
            poll.register(fd, select.POLLIN)
        return any(fd != self._wakeup_fd for fd, _ in poll.poll(CERTIFICATE_POLL_SECONDS * 1000))

    def _load(self) -> float:
        """Load the server and hand it the sockets."""
        try:
            from sammy_agent.daemon.server.app import ServerThread
        except ImportError as error:
            words = f"what the management server needs is missing: {error}"
            self._set_problem(
                Problem(Code.SERVER_INCOMPLETE, words, "apt install --reinstall sammy-agent, and what it depends on")
            )
            return self._backoff.next_delay()
        assert self._tls_context is not None  # there is no listening without
        thread = ServerThread(self._context, self._sockets, self._tls_context)
        if not thread.begin():
            self._set_problem(
                Problem(Code.SERVER_BROKEN, "the management server cannot be started", "See journalctl -u sammy-agent")
            )
            return self._backoff.next_delay()
        self._thread = thread
        return CERTIFICATE_POLL_SECONDS

    def _release(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets, self._listens = [], False

    def _set_problem(self, problem: Problem | None) -> None:
        if problem is not None and (self._problem is None or problem.code != self._problem.code):
            if problem is WAITING:
                LOG.info("%s", problem)  # every first boot begins so
            else:
                LOG.warning("%s", problem)
                self._record(kinds.SERVER_UNAVAILABLE, problem.text, detail={"code": problem.code.value})
        self._problem = problem


def _bind(family: int, address: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # what is accepted inherits these
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setblocking(False)
        one.bind((address, port))
    except OSError:
        one.close()
        raise
    return one


def tls_context(paths: Paths) -> ssl.SSLContext:
    """Return the context of the node's key and certificate. OSError or SSLError when they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a key with a password is refused; without one given here OpenSSL would ask the terminal and wait
    context.load_cert_chain(paths.tls_certificate, paths.tls_key, password="")
    return context


def _stamp(paths: Paths) -> tuple[int, ...] | None:
    """Return by what another certificate or key is known, None while there is none."""
    try:
        found = [os.stat(path) for path in (paths.tls_certificate, paths.tls_key)]
    except OSError:
        return None
    return tuple(number for one in found for number in (one.st_ino, one.st_mtime_ns, one.st_size))


def _taken(port: int, error: OSError) -> Problem:
    if error.errno == errno.EADDRINUSE:
        words = f"port {port} is used by another program, so the control plane cannot connect"
        return Problem(Code.PORT_TAKEN, words, f"Who it is: ss -ltnp 'sport = :{port}'; or choose another agent.port")
    return Problem(Code.PORT_UNUSABLE, f"port {port} cannot be used: {error.strerror}", "Choose another agent.port")


def _unusable(paths: Paths, error: Exception) -> Problem:
    said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    words = f"{paths.tls_certificate} and {paths.tls_key} cannot be used: {str(said).replace('_', ' ').lower()}"
    return Problem(
        Code.CERTIFICATE_UNUSABLE, words, "Are they a pair? Remove both, and the agent gets new ones if they are its"
    )
