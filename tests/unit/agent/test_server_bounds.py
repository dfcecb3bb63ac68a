# SPDX-License-Identifier: Apache-2.0
"""The management server against clients with bad manners: real sockets and TLS, its patience cut short."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives import serialization

from sammy_agent.base.runtime import process
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.log_throttle import LogThrottle, ThrottleFilter
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.web import connection_limit, guarded_server, json_handler, streaming
from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.token_signer import TokenSigner
from sammy_agent.daemon.credentials import certificate_request
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.server import app, auth, debug_package_job
from sammy_agent.daemon.server.context import ServerContext
from sammy_agent.daemon.server.jwks import JwksCache
from sammy_agent.daemon.server.listener import Listener, tls_context
from sammy_agent.diagnostics.debug_package import launcher
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.node.provisioning import ProvisioningState
from tests.agent.lab import wait_for

ISSUER = "https://plane.example"


class Lab:
    """A server in this process."""

    def __init__(self, root: Path, signer: TokenSigner, authority: CertificateAuthority) -> None:
        self.signer, self.authority = signer, authority
        self.paths = Paths(str(root / "node"))
        for path in (self.paths.tls_key, self.paths.events):
            Path(path).parent.mkdir(parents=True)
        request = certificate_request.request(self.paths.tls_key, self.paths.tls_certificate, "n1")
        Path(self.paths.tls_certificate).write_text(self.authority.sign_node(request, "n1", "127.0.0.1")[0])
        keys = JwksCache(lambda: json.dumps(self.signer.jwks()), self.paths.jwks)
        self.inbound = InboundContacts()
        self.parts = ServerContext(
            "n1", ISSUER, self.paths, EventStore(self.paths.events), MetricsStore(self.paths.metrics),
            ProvisioningState, self.inbound, keys,
        )  # fmt: skip
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.thread = app.ServerThread(self.parts, [self.socket], tls_context(self.paths))

    def get(self, path: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.signer.management_token(ISSUER, 'n1')}"}
        url = f"https://127.0.0.1:{self.port}{path}"
        return requests.get(url, headers=headers, verify=self.authority.ca_file, timeout=30, **more)

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return ssl.create_default_context(cafile=self.authority.ca_file).wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, path: str) -> ssl.SSLSocket:
        """Send a request, and read nothing."""
        channel = self.connect()
        token = self.signer.management_token(ISSUER, "n1")
        channel.sendall(f"GET {path} HTTP/1.1\r\nHost: n1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        return channel


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenSigner, CertificateAuthority]:
    """The control plane's keys: to make them takes longer than most of these tests."""
    folder = str(tmp_path_factory.mktemp("plane"))
    return TokenSigner.open(folder), CertificateAuthority(folder)


@pytest.fixture
def lab(tmp_path: Path, keys: tuple[TokenSigner, CertificateAuthority]) -> Iterator[Lab]:
    """Yield a lab whose server is not yet begun."""
    one = Lab(tmp_path, *keys)
    yield one
    one.thread.stop()
    if one.thread.ident:
        one.thread.join(30)
    one.parts.store.close()
    one.socket.close()


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in the place of `sammy-agent`; $OUTPUT is where the package belongs."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\nOUTPUT=$4\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(launcher, "PROGRAM", [str(path)])


def is_cut_off(channel: socket.socket) -> bool:
    """Read to the end, which must come; an answer before it is fine."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while channel.recv(65536):
            pass
    return True


def was_closed(channel: socket.socket) -> bool:
    """Tell whether the other side closed it; nothing is waited for."""
    channel.setblocking(False)
    try:
        return channel.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "framing", ["Transfer-Encoding: chunked\r\n\r\n-1\r\nx", "Content-Length: -5\r\n\r\nhello"], ids=["chunk", "length"]
)
def test_a_body_of_odd_length_hangs_nothing(lab: Lab, framing: str) -> None:
    """One packet of a stranger held this port for good: tornado looped in a chunk of -1."""
    assert lab.thread.begin()
    stranger = lab.connect()
    stranger.sendall(f"POST /events HTTP/1.1\r\nHost: n1\r\n{framing}".encode())
    assert stranger.recv(65536).startswith(b"HTTP/1.1 4")
    assert is_cut_off(stranger)
    assert lab.get("/events").status_code == 200


def test_idle_connections_and_drips_are_cut_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_server, "HEADER_TIMEOUT", 1.0)
    assert lab.thread.begin()
    silent = [socket.create_connection(("127.0.0.1", lab.port), timeout=30) for _ in range(50)]
    dripping = lab.connect()
    over = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            for byte in b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 1000:
                dripping.send(bytes([byte]))
                if over.wait(0.05):
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    assert lab.get("/events").status_code == 200, "the control plane is served meanwhile"
    assert all(is_cut_off(one) for one in (*silent, dripping))
    over.set()
    thread.join()
    wait_for(lambda: len(lab.thread.connections) == 0, "every connection to be forgotten")
    for one in (*silent, dripping):
        one.close()


def test_more_strangers_than_there_is_room_do_not_shut_the_control_plane_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.thread.begin()
    strangers = [
        socket.create_connection(("127.0.0.1", lab.port), timeout=30)
        for _ in range(3 * connection_limit.MAX_CONNECTIONS)
    ]
    assert lab.get("/events").status_code == 200
    assert len(lab.thread.connections) <= connection_limit.MAX_CONNECTIONS
    assert sum(map(was_closed, strangers)) >= 2 * connection_limit.MAX_CONNECTIONS
    for one in strangers:
        one.close()


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: n1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 70000,
        b"\x00\x01\x02\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: n1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["long header", "long body", "no HTTP", "odd length"],
)
def test_what_is_too_long_or_no_request_is_cut_off(lab: Lab, request_text: bytes) -> None:
    assert lab.thread.begin()
    with lab.connect() as channel:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            channel.sendall(request_text)
        assert is_cut_off(channel)
    assert lab.get("/health").status_code == 200


def test_a_client_that_stops_reading_is_given_up(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming, "STALLED", 1.0)
    program(tmp_path, monkeypatch, 'head -c 64000000 /dev/urandom > "$OUTPUT"')
    assert lab.thread.begin()
    before = resident()
    with caplog.at_level(logging.INFO), lab.ask("/debug-package") as channel:
        assert channel.recv(1000).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: "connection closed" in caplog.text, "the stalled client to be given up")
        assert not list(Path(lab.paths.outgoing).iterdir()), "nothing is left of it on the disk"
        assert is_cut_off(channel)
    assert resident() - before < 32_000_000, "64 MB were on their way, and must not have been in memory"
    answer = lab.get("/debug-package")
    assert len(answer.content) == 64_000_000 == int(answer.headers["Content-Length"])
    assert answer.headers["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()
    assert resident() - before < 32_000_000 + 64_000_000  # the client's own copy is in this process too
    assert "Traceback" not in caplog.text


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_one_package_at_a_time_and_none_for_who_is_gone(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program(tmp_path, monkeypatch, f"sleep 600 & echo $! > {tmp_path}/sleeps; wait")
    assert lab.thread.begin()
    first = lab.ask("/debug-package")
    sleeps = tmp_path / "sleeps"
    pid = int(wait_for(lambda: sleeps.exists() and sleeps.read_text(), "the package to be begun"))
    second = lab.get("/debug-package")
    assert (second.status_code, second.headers["Retry-After"]) == (409, str(debug_package_job.RETRY_AFTER))
    assert "is being made" in second.json()["error"]
    assert lab.get("/events").status_code == 200, "everything else goes on"
    first.close()
    wait_for(lambda: not alive(pid), "the program to be ended with its children")
    program(tmp_path, monkeypatch, 'echo done > "$OUTPUT"')
    assert wait_for(lambda: lab.get("/debug-package").content == b"done\n", "the next one")
    assert "Traceback" not in caplog.text


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo working >&2; echo 'sammy-agent: a secret of this node stood in it. Report it' >&2; exit 1",
         "a secret of this node stood in it. Report it"),
        ("exit 7", "exited with status 7"),
        ("kill -9 $$", "was killed by SIGKILL"),
    ],
    ids=["leak", "silent", "killed"],
)  # fmt: skip
def test_a_package_that_fails_is_a_500_in_words(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    program(tmp_path, monkeypatch, script)
    assert lab.thread.begin()
    answer = lab.get("/debug-package")
    assert (answer.status_code, answer.json()) == (500, {"error": words})


def test_a_program_that_is_not_there_or_hangs(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "PROGRAM", [str(tmp_path / "nothing")])
    assert lab.thread.begin()
    assert "cannot be started" in lab.get("/debug-package").json()["error"]
    program(tmp_path, monkeypatch, "sleep 600")
    monkeypatch.setattr(debug_package_job, "DEADLINE", 0.5)
    monkeypatch.setattr(process, "TERM_GRACE", 0.5)
    assert "not done within" in lab.get("/debug-package").json()["error"]


def test_only_the_control_planes_requests_are_visits(lab: Lab) -> None:
    assert lab.thread.begin()
    url = f"https://127.0.0.1:{lab.port}"
    for path in ("/health", "/events", "/nothing"):
        requests.get(url + path, verify=lab.authority.ca_file, timeout=30)
    assert lab.inbound.stats().visits == 0
    assert lab.get("/health").json()["nodeId"] == "n1"
    assert lab.inbound.snapshot()["last_peer"] == "127.0.0.1"
    refused = requests.get(
        url + "/health", headers={"Authorization": "Bearer x.y.z"}, verify=lab.authority.ca_file, timeout=30
    )
    assert refused.status_code == 401, "a token that is sent must be good, on /health too"


def test_who_makes_room() -> None:
    room: ConnectionLimiter[str] = ConnectionLimiter(limit=2)
    assert room.accept("a") is None and room.accept("b") is None
    room.authenticated("a")
    assert room.accept("c") == "b", "the one that waits longest; never one that is being answered"
    room.authenticated("c")
    assert room.accept("d") == "d", "where all are the control plane's, the new one goes"
    room.idle("a")
    assert room.accept("e") == "a"
    room.closed("c")
    room.closed("e")
    room.closed("never came")
    assert len(room) == 0


def garbage_instead_of_tls(lab: Lab, number: int) -> socket.socket:
    channel = socket.create_connection(("127.0.0.1", lab.port), timeout=30)
    channel.sendall(b"\x00garbage %d\r\n\r\n" % number)
    return channel


def garbage_instead_of_http(lab: Lab, number: int) -> socket.socket:
    channel = lab.connect()
    channel.sendall(b"\x00garbage %d\r\n\r\n" % number)
    return channel


def a_token_that_is_none(lab: Lab, number: int) -> socket.socket:
    channel = lab.connect()
    channel.sendall(
        b"GET /events HTTP/1.1\r\nHost: n1\r\nConnection: close\r\nAuthorization: Bearer x%d\r\n\r\n" % number
    )
    return channel


@pytest.mark.parametrize("garbage", [garbage_instead_of_tls, garbage_instead_of_http, a_token_that_is_none])
def test_strangers_do_not_fill_the_log(
    lab: Lab,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    garbage: Callable[[Lab, int], socket.socket],
) -> None:
    """200 connections with garbage were 200 lines of tornado's."""
    clock = FakeClock()
    for name in json_handler.LIBRARY_LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    monkeypatch.setattr(json_handler, "_FILTER", ThrottleFilter(json_handler.LIBRARY_LOG_INTERVAL, clock))
    monkeypatch.setattr(auth, "LogThrottle", lambda interval: LogThrottle(interval, clock))
    assert lab.thread.begin()

    def send(count: int) -> None:
        for number in range(count):
            with garbage(lab, number) as channel:
                assert is_cut_off(channel)

    with caplog.at_level(logging.INFO):
        send(200)
        assert 1 <= len(caplog.records) <= 2, "the first is told"
        caplog.clear()
        clock.advance(json_handler.LIBRARY_LOG_INTERVAL)
        send(1)
        assert any("similar messages suppressed)" in record.getMessage() for record in caplog.records)
    assert lab.get("/health").status_code == 200


def test_the_same_store_is_exported_while_it_is_written(lab: Lab, tmp_path: Path) -> None:
    import sqlite3

    lab.parts.store.trim()  # makes it
    assert lab.thread.begin()
    done = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(lab.paths.events, timeout=30)) as db:
            number = 0
            while not done.wait(0.002):
                with db:
                    for _ in range(2):  # two rows a transaction: a copy with an odd number was torn
                        number += 1
                        db.execute(
                            "INSERT INTO events (created_at, boottime_us, boot_id, level, type, message, run_id, step, "
                            "status, key) VALUES (1, 1, '', 'info', 't', 'm', '', '', '', ?)",
                            (str(number),),
                        )

    thread = threading.Thread(target=write)
    thread.start()
    copies = [lab.get("/events/export") for _ in range(5)]
    done.set()
    thread.join()
    for number, copy in enumerate(copies):
        assert copy.headers["Content-Type"] == "application/vnd.sqlite3"
        (tmp_path / f"copy{number}").write_bytes(copy.content)
        with contextlib.closing(sqlite3.connect(tmp_path / f"copy{number}")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT count(*) FROM events").fetchone()[0] % 2 == 0


def test_metrics_are_exported_as_the_events_are(lab: Lab, tmp_path: Path) -> None:
    lab.parts.metrics.add({"load1": 1.5}, Timestamp(1, 1))
    assert lab.thread.begin()
    answer = lab.get("/metrics/export")
    assert 'filename="metrics-n1.db"' in answer.headers["Content-Disposition"]
    (tmp_path / "copy.db").write_bytes(answer.content)
    assert [sample["load1"] for sample in MetricsStore(str(tmp_path / "copy.db")).samples()] == [1.5]


def test_a_key_with_a_password_is_refused_and_asks_nobody(lab: Lab) -> None:
    text = Path(lab.paths.tls_key).read_bytes()
    key = serialization.load_pem_private_key(text, password=None)
    locked = serialization.BestAvailableEncryption(b"secret")
    Path(lab.paths.tls_key).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    )
    with pytest.raises(ssl.SSLError):
        tls_context(lab.paths)


def test_a_server_that_ends_is_begun_anew_on_the_same_port(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.socket.close()
    listener = Listener(lab.parts, lab.port)
    listener.start()
    try:
        wait_for(lambda: listener.snapshot()["state"] == "listening", "the listener")
        serve = app.ServerThread._serve

        async def fails(self: app.ServerThread) -> None:
            raise RuntimeError("for the test")

        monkeypatch.setattr(app.ServerThread, "_serve", fails)
        with socket.create_connection(("127.0.0.1", lab.port), timeout=30):
            wait_for(lambda: (listener.snapshot()["problem"] or {}).get("code") == "server-broken", "the problem")
        monkeypatch.setattr(app.ServerThread, "_serve", serve)
        assert lab.get("/health").status_code == 200
        wait_for(lambda: listener.snapshot()["problem"] is None, "the problem to be over")
    finally:
        listener.stop()
        listener.join(30)


def test_a_disk_that_takes_nothing_is_a_503_in_words(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    Path(lab.paths.under_root("/var/lib/sammy")).mkdir(parents=True, exist_ok=True)
    assert lab.thread.begin()
    Path(lab.paths.outgoing).write_text("")
    for path in ("/debug-package", "/events/export"):
        answer = lab.get(path)
        assert answer.status_code == 503 and "cannot be written" in answer.json()["error"], path
    assert "Traceback" not in caplog.text


def test_a_damaged_or_full_store_is_a_503_in_words(lab: Lab) -> None:
    Path(lab.paths.events).mkdir()
    assert lab.thread.begin()
    for path in ("/events", "/events/export"):
        answer = lab.get(path)
        assert answer.status_code == 503 and "event" in answer.json()["error"], path
