# SPDX-License-Identifier: Apache-2.0
"""How the body of a request is framed is judged before tornado reads it: one packet could hang a port for good.

tornado 6.1 and Debian 12's 6.2 take a chunk of length `-1` and never come back from it, without a token and without
another task of the process getting a turn; `Content-Length: +5`, `1_0` or `-5` are numbers to them. Nothing that speaks
to us needs chunks, so they are refused with 411 (RFC 9112 6.3 allows it), and odd lengths with 400. The connection is
detached first (a public call, made for upgrades): tornado then reads nothing more of it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from tornado import httputil, iostream

_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_REASONS = {400: "Bad Request", 411: "Length Required"}


def refusal(headers: httputil.HTTPHeaders) -> tuple[int, str] | None:
    """Return the status and a sentence when a body of this framing is not read; None for a request that may go on."""
    if "Transfer-Encoding" in headers:
        return 411, "a body needs a Content-Length; Transfer-Encoding is not supported"
    lengths = headers.get_list("Content-Length")
    if len(set(lengths)) > 1 or not all(_LENGTH.match(length) for length in lengths):
        return 400, "Content-Length is not one whole number"
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        return 400, "Content-Encoding is not supported"
    return None


class FramingGuard(httputil.HTTPMessageDelegate):
    """Stands before a request's delegate; a request that is refused never reaches it."""

    def __init__(self, connection: httputil.HTTPConnection, delegate: httputil.HTTPMessageDelegate) -> None:
        self._connection, self._delegate = connection, delegate
        self._refused = False

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        """Judge the framing; hand the request on, or answer it here and hang up."""
        refused = refusal(headers)
        if refused is None:
            return self._delegate.headers_received(start_line, headers)
        self._refused = True
        self._answer(*refused)
        return None

    def _answer(self, status: int, sentence: str) -> None:
        stream: iostream.IOStream = self._connection.detach()  # type: ignore[attr-defined]  # HTTP/1's has it
        body = f'{{"error":"{sentence}"}}'
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json; charset=UTF-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        # Written before it is closed: IOStream sends what it can at once, and this fits any socket's buffer.
        written = stream.write((head + body).encode())

        def hang_up(_: object) -> None:
            written.exception()  # a peer that has gone already is nobody's failure
            stream.close()

        written.add_done_callback(hang_up)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Hand a part of the body on."""
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        """Hand the end of the request on."""
        self._delegate.finish()

    def on_connection_close(self) -> None:
        """Hand on that the peer has gone, if the request was handed on."""
        if not self._refused:
            self._delegate.on_connection_close()
