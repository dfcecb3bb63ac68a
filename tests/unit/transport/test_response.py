# SPDX-License-Identifier: Apache-2.0
"""The guarded reader of answers, byte by byte: what is refused, what is believed, what becomes of the connection."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import resource

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.transport import describe
from sammy_agent.transport.errors import MalformedResponse, chain
from sammy_agent.transport.response import ChunkedReader
from tests.unit.transport import faults
from tests.unit.transport.conftest import Make, Serve
from tests.unit.transport.faults import Exchange, by_turns

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "chunk of -1": CHUNKED + b"-1\r\nhello",
    "chunk of +5": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk of 0x5": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk of 1_0": CHUNKED + b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "chunk without a length": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk of 17 digits": CHUNKED + b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n",
    "chunk of no digits": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"2\r\nhello\r\n0\r\n\r\n",
    "chunk line without end": CHUNKED + b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailers without end": CHUNKED + b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 500 + b"\r\n",
    "length negative": OK + b"Content-Length: -5\r\n\r\nhello",
    "length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "length 1_0": OK + b"Content-Length: 1_0\r\n\r\n" + b"x" * 10,
    "length of words": OK + b"Content-Length: five\r\n\r\nhello",
    "length superscript": OK + b"Content-Length: \xb2\r\n\r\nhe",
    "length a list": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "lengths differ": OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip and chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello", mtime=0),
    "br": OK + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
}
BELIEVED = {
    "length": OK + b"Content-Length: 5\r\n\r\nhello",
    "length twice the same": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "identity": OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "chunks with an extension": CHUNKED + b"5;name=value\r\nhello\r\n0\r\n\r\n",
    "chunks with trailers": CHUNKED + b"5\r\nhello\r\n0\r\nx: y\r\nz: 1\r\n\r\n",
    "leading zeros": CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "103 twice": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2 + OK + b"Content-Length: 5\r\n\r\nhello",
}


def say(data: bytes, *, close: bool = False) -> faults.Script:
    def script(exchange: Exchange) -> None:
        exchange.send(data)
        if close:
            raise faults.Disconnect

    return script


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_guessed_at_elsewhere_is_refused(serve: Serve, make: Make, data: bytes) -> None:
    """Neither replayed nor a reason to renew the other connections: the path is sound, the peer is not."""
    server, transport = serve(say(data)), make(header_seconds=5.0)
    with pytest.raises(requests.RequestException) as caught:
        transport.session("a").get(server.url)
    assert any(isinstance(part, MalformedResponse) for part in chain(caught.value)), repr(caught.value)
    assert describe(caught.value).startswith("what answers does not keep to HTTP: ")
    assert (len(server.requests), transport.generation.number, transport.generation.leased) == (1, 1, 0)


@pytest.mark.parametrize("data", BELIEVED.values(), ids=BELIEVED.keys())
def test_what_keeps_to_http_is_believed_and_its_connection_kept(serve: Serve, make: Make, data: bytes) -> None:
    server, transport = serve(say(data)), make()
    session = transport.session("a")
    assert [session.get(server.url).text for _ in range(3)] == ["hello"] * 3
    assert transport.generation.prompt.registry.idle == 1
    streamed = session.get(server.url, stream=True)
    assert b"".join(streamed.iter_content(2)) == b"hello"


def test_a_head_and_an_empty_answer_have_no_chunks(serve: Serve, make: Make) -> None:
    server, transport = serve(by_turns(say(CHUNKED), say(b"HTTP/1.1 204 No Content\r\n\r\n"))), make()
    session = transport.session("a")
    assert session.head(server.url).text == ""
    assert session.get(server.url).status_code == 204


def test_the_longest_chunk_is_not_made_room_for(serve: Serve, make: Make) -> None:
    server = serve(say(CHUNKED + b"fffffffffffffff\r\nhello", close=True))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(requests.RequestException):
        make().session("a").get(server.url)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_nobody_is_asked_for_an_encoding(serve: Serve, make: Make) -> None:
    server = serve(faults.answer)
    make().session("a").get(server.url)
    assert {name.lower(): value for name, value in server.requests[0].headers.items()}["accept-encoding"] == "identity"


@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["at once", "later"])
@pytest.mark.parametrize("size", [20_000, 300_000, 4_000_000])
def test_an_answer_before_the_whole_body_is_believed(serve: Serve, make: Make, size: int, pause: float) -> None:
    """413 of a server that reads no further and hangs up: over TLS it was lost, and the body sent again."""
    server = serve(faults.early(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", pause))
    session = make().session("a")
    answers = [session.put(server.url, data=b"x" * size) for _ in range(3)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(413, "no")] * 3
    assert server.connections == len(server.requests), "a connection that owes a body was used again"


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 50))
def test_chunks_are_unpacked_whatever_the_pieces(parts: list[bytes], size: int) -> None:
    below = io.BufferedReader(io.BytesIO(chunked(parts) + b"next"), size)
    reader = io.BufferedReader(ChunkedReader(below), size)
    assert reader.read() == b"".join(parts)
    assert below.read() == b"next"


@given(st.binary(max_size=300))
def test_no_bytes_are_a_bug(data: bytes) -> None:
    reader = io.BufferedReader(ChunkedReader(io.BufferedReader(io.BytesIO(data))))
    with contextlib.suppress(http.client.HTTPException):
        assert len(reader.read()) <= len(data)
