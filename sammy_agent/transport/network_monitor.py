# SPDX-License-Identifier: Apache-2.0
"""One thread that hears the kernel speak of network changes, and passes each burst on once.

An accelerator, not the base: it cannot see a remote router lose its table, nor iptables-legacy (the kernel tells
nobody), nor nftables without CAP_NET_ADMIN; the transport finds dead connections without it. No conntrack group: it
reports only flows made after the listener joined, and each of a busy machine's.

Start it before the first connection. Its only wake-ups are the kernel's messages and the clock check.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from sammy_agent.base.runtime import procfs
from sammy_agent.transport import netlink
from sammy_agent.transport.netlink import Change

LOG = logging.getLogger(__name__)

DEBOUNCE = 0.15
# A burst without a pause is passed on after so long all the same. Docker rewrites its rules for seconds.
PATH_CAP, FIREWALL_CAP = 1.0, 5.0
CLOCK_CHECK = 15.0
# A clock that moved by so much against the steady one: the machine slept, was restored, or was set right.
CLOCK_JUMP = 5.0
_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1


class Burst:
    """Decides when a burst of changes is over; times are given, so nothing here waits."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._due = self._latest = 0.0

    def add(self, change: Change, now: float) -> None:
        """Take one change."""
        cap = now + (PATH_CAP if change.affects_routing else FIREWALL_CAP)
        self._latest = min(self._latest, cap) if self._reasons else cap
        self._due = now + DEBOUNCE
        if change.reason not in self._reasons:
            self._reasons.append(change.reason)

    def wait(self, now: float) -> float | None:
        """Return the seconds until the burst is over; None while there is none."""
        return max(0.0, min(self._due, self._latest) - now) if self._reasons else None

    def take(self) -> str:
        """End the burst; return its reasons in words."""
        reasons, self._reasons = self._reasons, []
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more


class Clocks:
    """Notices when wall-clock or sleeping time moved against the steady clock."""

    def __init__(self, read: Callable[[], tuple[float, float, float]] | None = None) -> None:
        self._read = read or _read_clocks
        self._last = self._read()

    def jump(self) -> str | None:
        """Return what happened since the last call, or None."""
        before, self._last = self._last, self._read()
        steady, boot, wall = (now - then for now, then in zip(self._last, before, strict=True))
        if boot - steady > 1.0:
            return f"the machine slept for {boot - steady:.0f} s"
        if steady > 3 * CLOCK_CHECK:
            return f"the machine stood still for {steady:.0f} s"
        if abs(wall - steady) > CLOCK_JUMP:
            return f"the clock was set by {wall - steady:+.0f} s"
        return None


def _read_clocks() -> tuple[float, float, float]:
    return time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time()


class NetworkMonitor:
    """Calls `on_change(reason)` from its own thread once a burst; what that raises is logged and forgotten.

    `blind_spots` names what this process may not see, in words for an operator.
    """

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._thread: threading.Thread | None = None
        self._stop_reader, self._stop_writer = -1, -1
        self.blind_spots: tuple[str, ...] = ()
        self.changes = 0

    def __repr__(self) -> str:
        state = "listening" if self._thread and self._thread.is_alive() else "stopped"
        blind = f", blind to {'; '.join(self.blind_spots)}" if self.blind_spots else ""
        return f"<NetworkMonitor {state}, {self.changes} changes passed on{blind}>"

    def start(self) -> None:
        """Begin to listen; when this returns, no later change is missed. OSError or RuntimeError: no room for it."""
        if self._thread is not None:
            return
        with contextlib.ExitStack() as opened:
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            for number in (reader, writer):
                opened.callback(os.close, number)
            route, firewall = self._open()
            for sock in (route, firewall):
                if sock is not None:
                    opened.callback(sock.close)
            work = (route, firewall, reader)
            thread = threading.Thread(target=self._run, args=work, name="sammy-network", daemon=True)
            thread.start()
            opened.pop_all()
        self._stop_reader, self._stop_writer, self._thread = reader, writer, thread

    def stop(self) -> None:
        """End the thread and wait for it."""
        if self._thread is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._stop_writer, b"x")
        if self._thread is not threading.current_thread():
            self._thread.join()
        for number in (self._stop_reader, self._stop_writer):
            with contextlib.suppress(OSError):
                os.close(number)
        self._thread = None

    def _open(self) -> tuple[socket.socket | None, socket.socket | None]:
        """Open what this process may; note what it may not."""
        blind_spots = ["losses beyond this machine", "iptables-legacy"]
        route = firewall = None
        try:
            route = _netlink(socket.NETLINK_ROUTE, groups=netlink.ROUTE_GROUPS)
        except OSError as error:
            blind_spots.append(f"links, addresses and routes ({error.strerror})")
        try:
            firewall = _netlink(_NETLINK_NETFILTER, member=netlink.NFNLGRP_NFTABLES)
        except OSError as error:
            blind_spots.append(f"nftables ({error.strerror}; needs CAP_NET_ADMIN)")
        self.blind_spots = tuple(blind_spots)
        LOG.info("network monitor: cannot see %s", "; ".join(blind_spots))
        return route, firewall

    def _run(self, route: socket.socket | None, firewall: socket.socket | None, stop: int) -> None:
        news, burst, clocks = netlink.Filter(_default_route_links, _name_of), Burst(), Clocks()
        poll = select.poll()
        readers: dict[int, tuple[socket.socket, Callable[[bytes], list[Change]]]] = {}
        for sock, reader in ((route, news.changes), (firewall, netlink.firewall_changes)):
            if sock is not None:
                readers[sock.fileno()] = (sock, reader)
                poll.register(sock, select.POLLIN)
        poll.register(stop, select.POLLIN)
        try:
            while True:
                wait = burst.wait(time.monotonic())
                ready = poll.poll((CLOCK_CHECK if wait is None else wait) * 1000)
                if any(number == stop for number, _ in ready):
                    return
                for number, _ in ready:
                    for change in _drain(*readers[number]):
                        burst.add(change, time.monotonic())
                jump = clocks.jump()
                if jump:
                    burst.add(Change(jump, affects_routing=True), time.monotonic())
                if burst.wait(time.monotonic()) == 0:
                    self._notify(burst.take())
        finally:
            for sock, _ in readers.values():
                sock.close()

    def _notify(self, reason: str) -> None:
        self.changes += 1
        try:
            self._on_change(reason)
        except Exception:
            LOG.exception("handling a network change failed (%s)", reason)


def _netlink(protocol: int, *, groups: int = 0, member: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((0, groups))
        if member:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, member)
    except OSError:
        sock.close()
        raise
    return sock


def _drain(sock: socket.socket, read: Callable[[bytes], list[Change]]) -> list[Change]:
    """Read all that waits. Messages lost for want of room are a change: nobody knows which."""
    found: list[Change] = []
    while True:
        try:
            found += read(sock.recv(1 << 17))
        except BlockingIOError:
            return found
        except OSError as error:
            found.append(Change(f"the kernel's messages came too fast ({error.strerror})", affects_routing=True))
            if error.errno != errno.ENOBUFS:
                return found


def _default_route_links() -> frozenset[str]:
    return frozenset(procfs.default_route_links())


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
