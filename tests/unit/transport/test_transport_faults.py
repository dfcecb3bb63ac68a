# SPDX-License-Identifier: Apache-2.0
"""What each misbehaviour of a server ends in: a replay, or an error that says what happened, always in time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import Any

import pytest
import requests

from sammy_agent.transport import IDEMPOTENCY_HEADER, TotalTimeout, describe
from sammy_agent.transport.errors import ResponseTooLong
from tests.network.firewall_lab import wait_until
from tests.unit.transport import faults
from tests.unit.transport.conftest import Make, Serve
from tests.unit.transport.faults import Script, answer, by_turns

KEY = {IDEMPOTENCY_HEADER: "k1"}
BROKEN = {
    "ends": faults.end,
    "resets": faults.reset,
    "half a header": faults.half_header,
    "half a body": faults.half_body,
    "half a chunk": faults.half_chunk,
    "no HTTP": faults.no_http,
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
def test_a_request_with_a_key_is_replayed_once(serve: Serve, make: Make, fault: Script) -> None:
    server, transport = serve(by_turns(answer, fault, answer)), make()
    session = transport.session("a")
    session.post(server.url, headers=KEY)
    assert session.post(server.url, headers=KEY).text == "ok"
    assert (len(server.requests), transport.generation.number) == (3, 2)


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
def test_one_without_is_not(serve: Serve, make: Make, fault: Script) -> None:
    server, transport = serve(by_turns(fault, answer)), make()
    with pytest.raises(requests.RequestException) as caught:
        transport.session("a").post(server.url)
    assert len(server.requests) == 1
    assert describe(caught.value)


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
def test_a_second_failure_surfaces(serve: Serve, make: Make, fault: Script) -> None:
    server = serve(fault)
    with pytest.raises(requests.RequestException):
        make().session("a").get(server.url)
    assert len(server.requests) == 2


def test_a_replay_that_fails_says_why_there_was_one(serve: Serve, make: Make) -> None:
    server, transport = serve(by_turns(faults.reset, faults.silent)), make(header_seconds=0.5)
    with pytest.raises(requests.exceptions.ReadTimeout) as caught:
        transport.session("a").get(server.url)
    assert len(server.requests) == 2
    text = describe(caught.value)
    assert text.startswith("connected, but no answer in time (on the replay; the first attempt: ")
    assert text.endswith(("connection reset by peer)", "remote end closed connection without response)"))


def test_a_first_failure_has_nothing_before_it(serve: Serve, make: Make) -> None:
    server, transport = serve(faults.silent), make(header_seconds=0.5)
    with pytest.raises(requests.exceptions.ReadTimeout) as caught:
        transport.session("a").get(server.url)
    assert describe(caught.value) == "connected, but no answer in time"


@pytest.mark.parametrize("fault", [faults.dribble_body, faults.dribble_header], ids=["body", "header"])
def test_a_dribble_ends_with_the_total_time(serve: Serve, make: Make, fault: Script) -> None:
    server = serve(fault)
    start = time.monotonic()
    with pytest.raises(TotalTimeout):
        make(total_seconds=0.5).session("a").get(server.url)
    assert 0.45 < time.monotonic() - start < 10
    assert len(server.requests) == 1


def test_a_streamed_dribble_ends_with_the_total_time_too(serve: Serve, make: Make) -> None:
    server = serve(faults.dribble_body)
    response = make(bulk_total_seconds=0.5).session("a").get(server.url, stream=True)
    start = time.monotonic()
    with pytest.raises(requests.RequestException):
        _ = response.content
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("size", [65536, 65537])
def test_an_answer_without_end_is_refused_before_it_fills_the_memory(serve: Serve, make: Make, size: int) -> None:
    """Whatever stands in the control plane's place; neither replayed nor a reason to remount."""
    body = b"x" * size
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
    server, transport = serve(lambda exchange: exchange.send(head.encode() + body)), make(max_response_bytes=65536)
    session = transport.session("a")
    if size <= 65536:
        assert session.get(server.url).content == body
    else:
        with pytest.raises(ResponseTooLong, match="longer than 65536 bytes"):
            session.get(server.url)
        assert (len(server.requests), transport.generation.number, transport.generation.leased) == (1, 1, 0)


def test_a_slow_answer_is_a_timeout_and_neither_replayed_nor_a_remount(serve: Serve, make: Make) -> None:
    server, transport = serve(faults.silent), make(header_seconds=0.5)
    with pytest.raises(requests.exceptions.ReadTimeout) as caught:
        transport.session("a").get(server.url)
    assert not isinstance(caught.value, TotalTimeout)
    assert (len(server.requests), transport.generation.number) == (1, 1)
    assert describe(caught.value) == "connected, but no answer in time"


def test_a_callers_timeout_wins(serve: Serve, make: Make) -> None:
    server = serve(faults.silent)
    start = time.monotonic()
    with pytest.raises(requests.exceptions.ReadTimeout):
        make().session("a").get(server.url, timeout=(5, 0.3))
    assert time.monotonic() - start < 10


def test_threads_that_fail_together_remount_once(serve: Serve, make: Make) -> None:
    gate = threading.Barrier(8)

    def together(exchange: faults.Exchange) -> None:
        if exchange.path == "/first":
            gate.wait(30)
            raise faults.Disconnect
        answer(exchange)

    server, transport = serve(together), make()
    results: list[int] = []

    def work() -> None:
        try:
            transport.session("a").post(server.url + "first")
        except requests.ConnectionError:
            results.append(transport.session("a").post(server.url).status_code)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert results == [200] * 8
    assert transport.generation.number == 2


def test_a_server_that_never_shakes_hands_costs_the_connect_time(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        with pytest.raises(requests.exceptions.ConnectTimeout):
            make(connect_seconds=0.5).session("a").get(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        assert 0.45 < time.monotonic() - start < 10


def test_a_handshake_that_breaks_off_is_begun_anew(make: Make, server_tls: ssl.SSLContext) -> None:
    """The first two connections are reset in the middle of the handshake, as when a firewall is rewritten."""
    with faults.serving(answer, tls=server_tls) as server, socket.create_server(("127.0.0.1", 0)) as front:
        threading.Thread(target=_resetting_front, args=(front, server.port, 2), daemon=True).start()
        url = f"https://127.0.0.1:{front.getsockname()[1]}/"
        assert make(retry_interval_seconds=0.05).session("a").post(url).text == "ok"
        assert len(server.requests) == 1


def _resetting_front(front: socket.socket, port: int, resets: int) -> None:
    for _ in range(resets):
        near, _ = front.accept()
        near.recv(1)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
    near, _ = front.accept()
    far = socket.create_connection(("127.0.0.1", port))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)

    threading.Thread(target=pump, args=(far, near), daemon=True).start()
    pump(near, far)


def test_a_tls_alert_is_said_and_not_repeated(make: Make, authority: faults.Authority) -> None:
    tls = authority.context("127.0.0.1")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # no cipher for the certificate's kind of key: an alert
    with faults.serving(answer, tls=tls) as server:
        with pytest.raises(requests.exceptions.SSLError):
            make().session("a").get(server.url)
        assert server.connections == 1


def test_refused_ends_soon(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(requests.ConnectionError) as caught:
        make().session("a").get(f"http://127.0.0.1:{port}/")
    assert time.monotonic() - start < 5
    assert describe(caught.value) == "connection refused"


def test_the_window_in_which_urllib3_finds_its_pool_closed(serve: Serve, make: Make) -> None:
    """Between asking for a pool and for its connection a remount happens; urllib3 1.26 fails there after clear()."""
    server, transport = serve(answer), make()
    session = transport.session("a")
    session.get(server.url)
    adapter: Any = transport.generation.prompt
    find = adapter.cert_verify

    def remounted_between(*words: Any) -> None:
        transport.remount("test")
        find(*words)

    adapter.cert_verify = remounted_between
    assert session.get(server.url).text == "ok"
    assert transport.generation.number == 2
    wait_until(lambda: server.open == 0, "nothing is kept in the old generation", 20)


def test_the_same_window_does_fail_with_a_plain_close(serve: Serve, make: Make) -> None:
    """The fault the test above is about exists: shown on a pool closed as requests closes it."""
    server, transport = serve(answer), make()
    adapter = transport.generation.prompt
    find = adapter.cert_verify
    adapter.cert_verify = lambda pool, *words: (pool.close(), find(pool, *words))  # type: ignore[assignment]
    with pytest.raises(requests.ConnectionError, match="Pool is closed"):
        transport.session("a").post(server.url)
