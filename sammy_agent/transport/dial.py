# SPDX-License-Identifier: Apache-2.0
"""Connecting: names, many attempts side by side, the first that answers wins.

The kernel repeats a lone SYN after 1, 3 and 7 s (before Linux 6.5), so a connect begun in a 5 s outage ends 2 s
after it. Attempts that start one beside the other have no such gaps, and the same code gives happy eyeballs
(RFC 8305): a black-holed IPv6 costs the 0.25 s until IPv4 is tried as well.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sammy_agent.transport import sockets

ATTEMPT_SPACING = 0.25
MAX_ATTEMPTS = 10
# An address that answers "refused" is given a moment, not the whole time: a restart, or a firewall being rewritten.
REFUSED_SECONDS = 1.0
# The last good addresses are used beside a look-up that takes longer: a resolver repeats a lost query after 5 s.
LOOKUP_GRACE_SECONDS = 0.5


class Address(NamedTuple):
    """One place to connect to."""

    family: int
    sockaddr: tuple[Any, ...]


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Order by turns of family, beginning with the resolver's first choice."""
    if not addresses:
        return []
    first = [address for address in addresses if address.family == addresses[0].family]
    second = [address for address in addresses if address.family != addresses[0].family]
    pairs = itertools.chain.from_iterable(itertools.zip_longest(first, second))
    return [address for address in pairs if address is not None]


def attempt_schedule(addresses: Sequence[Address], retry_interval: float) -> Iterator[tuple[float, Address]]:
    """Yield for ever (seconds after the start, address): all in turn, and all again every `retry_interval` seconds."""
    spacing = min(ATTEMPT_SPACING, retry_interval / len(addresses))
    for turn in itertools.count():
        for place, address in enumerate(addresses):
            # In the first turn the second address waits the full spacing: most connects need one attempt only.
            yield (place * ATTEMPT_SPACING if turn == 0 else turn * retry_interval + place * spacing), address


class Resolver:
    """Look names up without being held by a dead name server."""

    def __init__(self, lookup: Callable[..., list[Any]] | None = None) -> None:
        self._lookup = lookup or socket.getaddrinfo
        self._lock = threading.Lock()
        self._good: dict[tuple[str, int], list[Address]] = {}
        self._pending: dict[tuple[str, int], _Lookup] = {}

    def __repr__(self) -> str:
        return f"<Resolver {len(self._good)} names known, {len(self._pending)} being asked>"

    def addresses(self, host: str, port: int, until: float) -> list[Address]:
        """Return where to connect; raises socket.gaierror, or TimeoutError at `until`."""
        for family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                socket.inet_pton(family, host)
                return [Address(family, (host, port))]
        key = (host, port)
        with self._lock:
            question = self._pending.get(key)
            if question is None:
                question = self._pending[key] = _Lookup()
                threading.Thread(target=self._ask, args=(key, question), name="sammy-lookup", daemon=True).start()
        known = self._good.get(key)
        wait = until - time.monotonic()
        if not question.done.wait(max(0.0, min(wait, LOOKUP_GRACE_SECONDS) if known else wait)):
            if known:
                return known
            raise TimeoutError(f"the look-up of {host} took too long")
        if question.error is not None:
            if known:
                return known
            raise question.error
        return question.answer

    def _ask(self, key: tuple[str, int], question: _Lookup) -> None:
        try:
            found = self._lookup(*key, type=socket.SOCK_STREAM)
            question.answer = [Address(entry[0], entry[4]) for entry in found]
            self._good[key] = question.answer
        except OSError as error:
            question.error = error
        except UnicodeError as error:
            question.error = socket.gaierror(socket.EAI_NONAME, f"{key[0]} is no name: {error}")
        finally:
            with self._lock:
                self._pending.pop(key, None)
            question.done.set()


class _Lookup:
    """A look-up under way; who asks for the same name meanwhile waits for the same answer."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: list[Address] = []
        self.error: OSError | None = None


def connect(addresses: Sequence[Address], until: float, retry_interval: float) -> sockets.DeadlineSocket:
    """Connect to the first address that answers; raises TimeoutError at `until`, or the OSError all gave.

    An unreachable network is waited out, as a network in change is one for a moment.
    """
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")
    attempts = _Attempts()
    order = interleave(addresses)
    plan = enumerate(attempt_schedule(order, retry_interval))
    start = time.monotonic()
    begun, (at, address) = next(plan)
    try:
        while (now := time.monotonic()) < until and not attempts.refused_for(REFUSED_SECONDS):
            # An address that fails at once makes room for the next of the first turn at once.
            if now >= start + at or (begun < len(order) and not attempts.live):
                attempts.begin(address)
                begun, (at, address) = next(plan)
                continue
            connected = attempts.wait(min(start + at, until) - now)
            if connected is not None:
                return connected
        raise attempts.outcome()
    finally:
        attempts.close()


class _Attempts:
    """The sockets of one connect that have not answered yet, oldest first."""

    def __init__(self) -> None:
        self._sockets: dict[int, sockets.DeadlineSocket] = {}
        self._poll = select.poll()
        self._error: OSError | None = None
        self._refused: float | None = None

    @property
    def live(self) -> int:
        return len(self._sockets)

    def begin(self, address: Address) -> None:
        """Start one more attempt; beyond the most at a time the oldest makes room."""
        if self.live >= MAX_ATTEMPTS:
            self._drop(next(iter(self._sockets)))
        sock = None
        try:
            sock = sockets.DeadlineSocket(address.family, socket.SOCK_STREAM)
            sockets.prepare(sock)
            sock.setblocking(False)
            code = sock.connect_ex(address.sockaddr)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            if sock is not None:
                sock.close()
            self._failed(error)
            return
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock, select.POLLOUT)

    def wait(self, seconds: float) -> sockets.DeadlineSocket | None:
        """Return the attempt that connected within so many seconds."""
        for number, _ in self._poll.poll(max(0.0, seconds) * 1000 + 1):
            sock = self._sockets[number]
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                self._poll.unregister(number)
                return self._sockets.pop(number)
            self._failed(OSError(code, os.strerror(code)))
            self._drop(number)
        return None

    def refused_for(self, seconds: float) -> bool:
        """Tell whether all that is heard for so long is "refused"."""
        return self._refused is not None and not self._sockets and time.monotonic() - self._refused > seconds

    def outcome(self) -> OSError:
        """Return why there is no connection."""
        return self._error if self._error is not None and not self._sockets else TimeoutError("nothing answered")

    def _failed(self, error: OSError) -> None:
        self._error = error
        if error.errno != errno.ECONNREFUSED:
            self._refused = None
        elif self._refused is None:
            self._refused = time.monotonic()

    def _drop(self, number: int) -> None:
        self._poll.unregister(number)
        self._sockets.pop(number).close()

    def close(self) -> None:
        """Close all that did not win."""
        for number in list(self._sockets):
            self._drop(number)
