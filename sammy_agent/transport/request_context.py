# SPDX-License-Identifier: Apache-2.0
"""One request on its way: its deadlines, its profile, how far it got.

requests and urllib3 hand none of this down to the connection, in no version. A request is sent by one thread from
start to header, so the thread carries it. `judge` decides what a failure means; it does no I/O.
"""

from __future__ import annotations

import contextlib
import enum
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import requests

from sammy_agent.transport.errors import AnswerTooLong, certificate_problem, chain
from sammy_agent.transport.settings import SocketProfile, TransportSettings

IDEMPOTENCY_HEADER = "X-Sammy-Idempotency-Key"
# RFC 9110 9.2.2; a POST is replayed only with a key by which the receiver can tell the second from the first.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_KEYS = (IDEMPOTENCY_HEADER, "Idempotency-Key")


class Phase(enum.IntEnum):
    """How far a request has come."""

    WAITING = 0  # no connection yet
    CONNECTING = 1
    SENT = 2  # some of it may have reached the server


@dataclass
class Errand:
    """What one request may take, in moments of time.monotonic, and where it is."""

    profile: SocketProfile
    replayable: bool
    until: float
    connect_seconds: float
    header_seconds: float
    again_seconds: float = 1.0
    bulk: bool = False
    phase: Phase = Phase.WAITING
    connect_until: float = field(default=0.0)

    def start(self) -> None:
        """Begin an attempt: the first, or the replay, which has a connect time of its own."""
        self.phase = Phase.WAITING
        self.connect_until = min(self.until, time.monotonic() + self.connect_seconds)

    @property
    def overdue(self) -> bool:
        """Its total time has passed."""
        return time.monotonic() >= self.until


class Verdict(NamedTuple):
    """What a failure asks for."""

    remount: bool
    replay: bool


_thread = threading.local()


def current() -> Errand | None:
    """Return the errand this thread is on."""
    return getattr(_thread, "errand", None)


@contextlib.contextmanager
def under_way(errand: Errand) -> Iterator[None]:
    """Make it this thread's errand."""
    before = current()
    _thread.errand = errand
    try:
        yield
    finally:
        _thread.errand = before


def plan(request: requests.PreparedRequest, stream: bool, timeout: object, settings: TransportSettings) -> Errand:
    """Decide a request's pool, deadlines and whether it may be replayed.

    Bulk are bodies above `bulk_bytes` or of unknown length, streamed answers, and requests that allow a longer
    silence than `header_seconds`. `timeout` is what requests takes: None (the defaults), seconds, a pair, or
    urllib3's Timeout, whose total wins.
    """
    connect, read, total = _times(timeout)
    body = request.body
    known = body is None or isinstance(body, (bytes, str))
    size = len(body) if isinstance(body, (bytes, str)) else 0
    patient = read is not None and read > settings.header_seconds
    bulk = not known or size > settings.bulk_bytes or stream or patient
    idempotent = request.method in _IDEMPOTENT or any(name in request.headers for name in _KEYS)
    if total is None:
        total = max(settings.bulk_total_seconds if bulk else settings.total_seconds, read or 0.0)
    return Errand(
        profile=settings.bulk if bulk else settings.prompt,
        replayable=known and idempotent,
        until=time.monotonic() + total,
        connect_seconds=settings.connect_seconds if connect is None else connect,
        header_seconds=settings.header_seconds if read is None else read,
        again_seconds=settings.again_seconds,
        bulk=bulk,
    )


def _times(timeout: object) -> tuple[float | None, float | None, float | None]:
    """Return connect, read and total of what a caller of requests may give; None where it leaves them open."""
    if timeout is None or isinstance(timeout, (int, float)):
        return timeout, timeout, None
    if isinstance(timeout, tuple):
        connect, read = timeout
        return connect, read, None

    def number(name: str) -> float | None:
        value = getattr(timeout, name, None)
        return float(value) if isinstance(value, (int, float)) else None

    return number("_connect"), number("_read"), number("total")


def judge(error: BaseException, errand: Errand) -> Verdict:
    """Decide what a failed attempt asks for.

    A refused certificate or an unreachable address says nothing about other connections, and waiting on is the
    caller's choice. A timeout by our own clock means a slow server: the kernel and the acknowledgment watch report
    a dead path long before it. All else after sending began means connections made before may be dead as well.
    """
    if errand.overdue or certificate_problem(error) or errand.phase < Phase.SENT:
        return Verdict(remount=False, replay=False)
    if any(isinstance(part, TimeoutError) for part in chain(error)) and not _proven(error):
        return Verdict(remount=False, replay=False)
    if isinstance(error, _NOT_OF_THE_PATH):
        return Verdict(remount=False, replay=False)
    return Verdict(remount=True, replay=errand.replayable)


_NOT_OF_THE_PATH = (
    AnswerTooLong,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidHeader,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.ProxyError,
    requests.exceptions.TooManyRedirects,
)


def _proven(error: BaseException) -> bool:
    """Whether the path's death is known, and not only slowness."""
    return any(isinstance(part, (ConnectionError, ssl.SSLEOFError)) for part in chain(error))
