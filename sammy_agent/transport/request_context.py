# SPDX-License-Identifier: Apache-2.0
"""Per-request context: deadlines, socket profile, phase.

requests and urllib3 hand none of this down to the connection, in no version. A request is sent by one thread from
start to header, so the thread carries it. `classify_failure` decides what a failure means; it does no I/O.
"""

from __future__ import annotations

import contextlib
import enum
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import requests
from urllib3.util import Timeout

from sammy_agent.transport.errors import MalformedResponse, ResponseTooLong, certificate_problem, chain
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
class RequestContext:
    """What one request may take, in moments of time.monotonic, and where it is."""

    profile: SocketProfile
    replayable: bool
    until: float
    connect_seconds: float
    header_seconds: float
    retry_interval_seconds: float = 1.0
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


def current() -> RequestContext | None:
    """Return the context of the request this thread is sending; None outside of one."""
    return getattr(_thread, "context", None)


@contextlib.contextmanager
def use_context(context: RequestContext) -> Iterator[None]:
    """Make it the context of the request this thread is sending."""
    before = current()
    _thread.context = context
    try:
        yield
    finally:
        _thread.context = before


def make_context(
    request: requests.PreparedRequest, stream: bool, timeout: Any, settings: TransportSettings
) -> RequestContext:
    """Decide a request's pool, deadlines and whether it may be replayed.

    Bulk are bodies above `bulk_bytes` or of unknown length, streamed answers, and requests that allow a longer
    silence than `header_seconds`. `timeout` is what requests takes: None (the defaults), seconds, a pair, or
    urllib3's Timeout, whose total wins.
    """
    connect, read, total = _parse_timeout(timeout)
    body = request.body
    known = body is None or isinstance(body, (bytes, str))
    size = len(body) if isinstance(body, (bytes, str)) else 0
    patient = read is not None and read > settings.header_seconds
    bulk = not known or size > settings.bulk_bytes or stream or patient
    idempotent = request.method in _IDEMPOTENT or any(name in request.headers for name in _KEYS)
    if total is None:
        total = max(settings.bulk_total_seconds if bulk else settings.total_seconds, read or 0.0)
    return RequestContext(
        profile=settings.bulk if bulk else settings.prompt,
        replayable=known and idempotent,
        until=time.monotonic() + total,
        connect_seconds=settings.connect_seconds if connect is None else connect,
        header_seconds=settings.header_seconds if read is None else read,
        retry_interval_seconds=settings.retry_interval_seconds,
        bulk=bulk,
    )


def _parse_timeout(timeout: Any) -> tuple[float | None, float | None, float | None]:
    """Return connect, read and total of what a caller of requests may give; None where it leaves them open.

    :raises ValueError: with requests' and urllib3's own words, for what they refuse.
    """
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(
                f"Invalid timeout {timeout}. Pass a (connect, read) timeout tuple, "
                "or a single float to set both timeouts to the same value."
            )
        timeout = Timeout(connect=timeout[0], read=timeout[1])
    elif not isinstance(timeout, Timeout):
        timeout = Timeout(connect=timeout, read=timeout)

    def number(name: str) -> float | None:
        value = getattr(timeout, name, None)
        return float(value) if isinstance(value, (int, float)) else None

    return number("_connect"), number("_read"), number("total")


def classify_failure(error: BaseException, context: RequestContext) -> Verdict:
    """Decide what a failed attempt asks for.

    A refused certificate or an unreachable address says nothing about other connections, and waiting on is the
    caller's choice. A timeout by our own clock means a slow server: the kernel and the acknowledgment watch report
    a dead path long before it. All else after sending began means connections made before may be dead as well.
    """
    if context.overdue or certificate_problem(error) or context.phase < Phase.SENT:
        return Verdict(remount=False, replay=False)
    if any(isinstance(part, TimeoutError) for part in chain(error)) and not _path_is_dead(error):
        return Verdict(remount=False, replay=False)
    if isinstance(error, _UNRELATED_TO_THE_PATH) or any(isinstance(part, MalformedResponse) for part in chain(error)):
        return Verdict(remount=False, replay=False)
    return Verdict(remount=True, replay=context.replayable)


_UNRELATED_TO_THE_PATH = (
    ResponseTooLong,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidHeader,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.ProxyError,
    requests.exceptions.TooManyRedirects,
)


def _path_is_dead(error: BaseException) -> bool:
    """Whether the path's death is known, and not only slowness."""
    return any(isinstance(part, (ConnectionError, ssl.SSLEOFError)) for part in chain(error))
