# SPDX-License-Identifier: Apache-2.0
"""Requests byte by byte to a tornado server behind the framing guard: refused and answered, and no port that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from tornado import httpserver, httputil, netutil, web

from sammy_agent.base.web.framing import FramingGuard

REFUSED = {
    "chunk of -1": (b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello", 411),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
    "chunks in capitals": (b"TRANSFER-ENCODING: ChUnKeD\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
    "another encoding": (b"Transfer-Encoding: gzip\r\n\r\nhello", 411),
    "an empty encoding": (b"Transfer-Encoding: \r\n\r\nhello", 411),
    "chunks and a length": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
    "length of +5": (b"Content-Length: +5\r\n\r\nhello", 400),
    "length of -5": (b"Content-Length: -5\r\n\r\nhello", 400),
    "length of 1_0": (b"Content-Length: 1_0\r\n\r\nhellohello", 400),
    "length of 5.0": (b"Content-Length: 5.0\r\n\r\nhello", 400),
    "length of 5, 5": (b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "lengths differ": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "length of 5,000 digits": (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello", 400),
    "length of nothing": (b"Content-Length: \r\n\r\nhello", 400),
    "superscript": ("Content-Length: \u00b2\r\n\r\nhello".encode("latin-1"), 400),
    "gzip": (b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", 400),
}


class Echo(web.RequestHandler):
    def post(self) -> None:
        self.write(self.request.body)


class Server(httpserver.HTTPServer):
    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return FramingGuard(request_conn, super().start_request(server_conn, request_conn))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server's port; it serves in a thread with a loop of its own."""
    ready: list[object] = []
    begun = threading.Event()

    async def serve() -> None:
        server = Server(web.Application([(r"/", Echo)], log_function=lambda handler: None), max_body_size=1000)
        sockets = netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        stop = asyncio.Event()
        ready.extend([sockets[0].getsockname()[1], asyncio.get_running_loop(), stop])
        begun.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert begun.wait(30)
    number, loop, stop = ready
    assert isinstance(number, int) and isinstance(loop, asyncio.AbstractEventLoop) and isinstance(stop, asyncio.Event)
    yield number
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    assert not thread.is_alive()


def exchange(port: int, data: bytes) -> bytes:
    """Return all that comes back until the server hangs up or says nothing more for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                found += part
        return found


@pytest.mark.parametrize(("rest", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_tornado_would_guess_at_is_refused_and_the_port_serves_on(port: int, rest: bytes, status: int) -> None:
    answer = exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\n" + rest)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1, "a second request was read out of the first one's body"
    whole = exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
    assert whole.endswith(b"\r\n\r\nhello")


def test_requests_that_are_in_order_share_a_connection(port: int) -> None:
    one = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    last = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye"
    answer = exchange(port, one + one + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3 and answer.endswith(b"bye")


def test_the_body_may_come_later_and_never(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
    whole = exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
    assert whole.endswith(b"\r\n\r\nhello")
