# SPDX-License-Identifier: Apache-2.0
"""Sessions on one transport: shared connections, remounts, leases, forks, proxies, certificates."""

from __future__ import annotations

import gc
import os
import re
import ssl
import threading
from pathlib import Path

import pytest
import requests

from sammy_agent.transport import (
    IDEMPOTENCY_HEADER,
    ControlPlaneTransport,
    TransportClosed,
    TransportError,
    TransportSettings,
    certificate_problem,
    describe,
)
from tests.network.firewall_lab import wait_until
from tests.unit.transport import faults
from tests.unit.transport.conftest import Make, Serve
from tests.unit.transport.faults import Authority, answer, by_turns, own_port, serving

BIG = b"x" * 100_000


def test_two_components_share_and_a_remount_renews_both_pools(serve: Serve, make: Make) -> None:
    server, transport = serve(own_port), make()
    beats, uploads = transport.session("heartbeat"), transport.session("boot-log")

    def ports() -> tuple[str, str, str]:
        return beats.post(server.url).text, uploads.post(server.url).text, uploads.post(server.url, data=BIG).text

    first = ports()
    assert first[0] == first[1] != first[2]
    assert [(registry.idle, registry.leased) for registry in transport.generation.registries] == [(1, 0), (1, 0)]

    transport.remount("test")

    assert [(registry.idle, registry.leased) for registry in transport.generation.registries] == [(0, 0), (0, 0)]
    wait_until(lambda: server.open == 0, "the server has seen the old connections end", 20)
    second = ports()
    assert second[0] == second[1] != second[2]
    assert not set(first) & set(second)


def test_repr_tells_the_state(serve: Serve, make: Make) -> None:
    release = threading.Event()

    def held(exchange: faults.Exchange) -> None:
        release.wait(60)
        answer(exchange)

    server, transport = serve(held), make()
    assert repr(transport) == ("<ControlPlaneTransport generation 1: prompt 0 idle 0 leased, bulk 0 idle 0 leased>")
    worker = threading.Thread(target=transport.session("a").get, args=(server.url,))
    worker.start()
    wait_until(lambda: len(server.requests) == 1, "the request is at the server", 20)
    transport.remount("test")
    assert repr(transport) == (
        "<ControlPlaneTransport generation 2: prompt 0 idle 0 leased, bulk 0 idle 0 leased, 1 leased of old>"
    )
    release.set()
    worker.join(20)
    gc.collect()
    assert repr(transport) == ("<ControlPlaneTransport generation 2: prompt 0 idle 0 leased, bulk 0 idle 0 leased>")
    wait_until(lambda: server.open == 0, "the old generation has closed its last connection", 20)


def test_the_named_authority_is_the_only_one_that_is_trusted(serve: Serve, make: Make) -> None:
    server, transport = serve(own_port), make()
    transport.session("heartbeat").get(server.url)
    transport.session("boot-log").get(server.url, stream=True).close()
    assert len(transport._tls.get_ca_certs()) == 1, "Debian's urllib3 adds the system's, one connection later"


def test_a_request_in_flight_survives_a_remount(serve: Serve, make: Make) -> None:
    release = threading.Event()

    def held(exchange: faults.Exchange) -> None:
        release.wait(60)
        answer(exchange, b"whole")

    server, transport = serve(held), make()
    got: list[str] = []
    worker = threading.Thread(target=lambda: got.append(transport.session("a").post(server.url).text))
    worker.start()
    wait_until(lambda: len(server.requests) == 1, "the request is at the server", 20)
    for _ in range(3):
        transport.remount("test")
    release.set()
    worker.join(20)
    assert got == ["whole"]
    assert len(server.requests) == 1


def test_a_streamed_body_is_read_across_a_remount(serve: Serve, make: Make) -> None:
    server, transport = serve(lambda exchange: answer(exchange, BIG * 20)), make()
    response = transport.session("download").get(server.url, stream=True)
    transport.remount("test")
    assert sum(len(part) for part in response.iter_content(4096)) == len(BIG) * 20
    wait_until(lambda: server.open == 0, "the drained connection is closed", 20)


def test_a_streamed_answer_dropped_unread_keeps_no_socket(serve: Serve, make: Make) -> None:
    server, transport = serve(lambda exchange: answer(exchange, BIG * 50)), make()
    response = transport.session("download").get(server.url, stream=True)
    assert transport.generation.leased == 1
    del response
    gc.collect()
    assert transport.generation.leased == 0
    wait_until(lambda: server.open == 0, "the connection is closed", 20)


def test_closing_a_session_leaves_the_transport_open(serve: Serve, make: Make) -> None:
    server, transport = serve(own_port), make()
    with transport.session("a") as session:
        first = session.get(server.url).text
    assert transport.session("b").get(server.url).text == first


def test_an_idle_connection_is_not_used_after_its_time(serve: Serve, make: Make) -> None:
    server, transport = serve(own_port), make(idle_seconds=0.2)
    session = transport.session("a")
    first = session.get(server.url).text
    wait_until(lambda: session.get(server.url).text == first, "used again at once", 20)
    ended = threading.Event()
    ended.wait(0.4)
    assert session.get(server.url).text != first


def test_closing_wakes_what_is_in_flight_and_refuses_what_comes(serve: Serve, make: Make) -> None:
    server, transport = serve(faults.silent), make()
    failed: list[Exception] = []

    def ask() -> None:
        try:
            transport.session("a").get(server.url)
        except requests.RequestException as error:
            failed.append(error)

    worker = threading.Thread(target=ask)
    worker.start()
    wait_until(lambda: len(server.requests) == 1, "the request is at the server", 20)
    transport.close()
    worker.join(20)
    assert not worker.is_alive()
    assert isinstance(failed[0], requests.ConnectionError)
    with pytest.raises(TransportClosed):
        transport.session("a").get(server.url)


def test_a_forked_child_has_connections_of_its_own(serve: Serve, make: Make) -> None:
    server, transport = serve(own_port), make()
    session = transport.session("a")
    parents = session.get(server.url).text
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, session.get(server.url, timeout=20).text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        childs = pipe.read()
    os.waitpid(child, 0)
    assert childs.isdigit()
    assert childs != parents
    assert session.get(server.url).text == parents


def test_redirects_and_chunked_uploads_work(serve: Serve, make: Make) -> None:
    def script(exchange: faults.Exchange) -> None:
        if exchange.path == "/from":
            exchange.send(b"HTTP/1.1 307 Go\r\nLocation: /to\r\nContent-Length: 0\r\n\r\n")
        else:
            answer(exchange, exchange.body)

    server, transport = serve(script), make()
    assert transport.session("a").put(server.url + "from", data=b"body").text == "body"


class TestCertificates:
    def test_a_strangers_certificate_is_refused_without_replay_or_remount(self, make: Make, tmp_path: Path) -> None:
        stranger = Authority(tmp_path)
        transport = make()
        with serving(answer, tls=stranger.context("127.0.0.1")) as server:
            with pytest.raises(requests.exceptions.SSLError) as caught:
                transport.session("a").get(server.url)
            assert server.connections == 1
        assert transport.generation.number == 1
        assert describe(caught.value).startswith("the control plane's certificate was refused: ")

    def test_an_expired_one_names_the_clock(self, make: Make, authority: Authority) -> None:
        tls = authority.context("127.0.0.1", expired=True)
        with serving(answer, tls=tls) as server, pytest.raises(requests.exceptions.SSLError) as caught:
            make().session("a").get(server.url)
        assert "clock" in str(certificate_problem(caught.value))

    def test_a_wrong_name_is_refused(self, make: Make, authority: Authority) -> None:
        tls = authority.context("control-plane.example")
        with serving(answer, tls=tls) as server, pytest.raises(requests.exceptions.SSLError):
            make().session("a").get(server.url)

    @pytest.mark.parametrize("options", [{"verify": False}, {"cert": "/nowhere"}], ids=["verify", "cert"])
    def test_a_request_cannot_go_without(self, make: Make, options: dict[str, object]) -> None:
        with pytest.raises(TransportError, match="certificates"):
            make().session("a").get("https://127.0.0.1:1/", **options)  # type: ignore[arg-type]

    def test_a_missing_authority_file_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(TransportError, match=re.escape(str(tmp_path / "none.pem"))):
            ControlPlaneTransport(TransportSettings(ca_file=str(tmp_path / "none.pem")))


class TestEnvironment:
    def test_a_proxy_of_the_environment_is_used_and_no_proxy_heeded(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        transport = make()
        with serving(lambda exchange: answer(exchange, b"proxy")) as proxy, serving(answer) as server:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            assert transport.session("a").get(server.url).text == "proxy"
            assert proxy.requests[0].path == server.url
            transport.remount("test")
            wait_until(lambda: proxy.open == 0, "the proxy's connection is renewed too", 20)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert transport.session("a").get(server.url).text == "ok"

    def test_tls_through_a_proxys_tunnel(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, server_tls: ssl.SSLContext
    ) -> None:
        transport = make()
        with serving(own_port, tls=server_tls) as server, serving(_tunnel) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            session = transport.session("a")
            first = session.get(server.url).text
            assert session.get(server.url).text == first
            assert [exchange.method for exchange in proxy.requests] == ["CONNECT"]
            transport.remount("test")
            assert session.get(server.url).text != first

    def test_netrc_and_foreign_authorities_are_not(
        self, make: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
        server = serve(answer)
        make().session("a").get(server.url, headers={"Authorization": "Bearer token"})
        assert server.requests[0].headers["authorization"] == "Bearer token"


def _tunnel(exchange: faults.Exchange) -> None:
    """A proxy's CONNECT, on the connection's own thread."""
    import select
    import socket

    host, _, port = exchange.path.rpartition(":")
    with socket.create_connection((host, int(port))) as far:
        exchange.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        near = exchange.sock
        while True:
            for source in select.select([near, far], [], [], 60)[0]:
                data = source.recv(65536)
                if not data:
                    raise faults.Disconnect
                (far if source is near else near).sendall(data)


def test_the_key_goes_with_the_replay(serve: Serve, make: Make) -> None:
    server, transport = serve(by_turns(faults.end, answer)), make()
    transport.session("a").post(server.url, data=b"beat", headers={IDEMPOTENCY_HEADER: "k1"})
    assert [(one.headers[IDEMPOTENCY_HEADER.lower()], one.body) for one in server.requests] == [("k1", b"beat")] * 2
