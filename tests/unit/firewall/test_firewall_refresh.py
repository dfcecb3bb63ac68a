# SPDX-License-Identifier: Apache-2.0
"""Which fetched lists are believed; fetching from a real https server that misbehaves."""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.firewall import cloudflare_refresh
from cc_sammy.firewall.model import networks

GOOD = "\n".join(networks.CLOUDFLARE).encode()
FOUR, SIX = list(networks.CLOUDFLARE[:15]), list(networks.CLOUDFLARE[15:])
HOUR = cloudflare_refresh.CONFIRMATION_SECONDS


def as_json(four: list[str], six: list[str], success: Any = True) -> bytes:
    result = {"ipv4_cidrs": four, "ipv6_cidrs": six, "etag": "x"}
    return json.dumps({"success": success, "errors": [], "result": result}).encode()


def test_both_forms_are_read() -> None:
    assert cloudflare_refresh.parse_list(GOOD) == networks.CLOUDFLARE
    assert cloudflare_refresh.parse_list(as_json(FOUR, SIX)) == networks.CLOUDFLARE


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "0 IPv4 networks"),
        (b"<!DOCTYPE html><html><body>Attention</body></html>", "not a network"),
        ("\n".join(FOUR).encode(), "0 IPv6 networks"),
        (GOOD[:-4], "not a network"),
        (as_json(FOUR, SIX)[:200], "only a part of it"),
        (as_json(FOUR, SIX, False), "success"),
        (as_json([*FOUR, "0.0.0.0/0"], SIX), "wider than /8"),
        (as_json([*FOUR, "8.0.0.0/7"], SIX), "wider than /8"),
        (as_json(FOUR, [*SIX, "2000::/3"]), "wider than /16"),
        (as_json([*FOUR, "10.0.0.0/8"], SIX), "not public"),
        (as_json([*FOUR, "224.1.0.0/16"], SIX), "not public"),
        (as_json([*FOUR, FOUR[0]], SIX), "twice"),
        (as_json([*FOUR, "1.2.3.4"], SIX), "without a prefix length"),
        (as_json([*FOUR, "1.2.3.4/8"], SIX), "not a network"),
        (b'{"success": true}', "not Cloudflare's JSON"),
        (b'{"success": true, "result": {"ipv4_cidrs": [1], "ipv6_cidrs": []}}', "not strings"),
        (b"{" * 50_000, "not Cloudflare's JSON"),
        (b"\xff\xfe", "not plain text"),
    ],
)
def test_what_is_no_such_list_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(cloudflare_refresh.RangesRefused, match=why):
        cloudflare_refresh.parse_list(body)


@given(st.one_of(st.binary(max_size=400), st.lists(st.text(max_size=20)).map(lambda words: "\n".join(words).encode())))
def test_any_bytes_are_a_good_list_or_refused(body: bytes) -> None:
    try:
        found = cloudflare_refresh.parse_list(body)
    except cloudflare_refresh.RangesRefused:
        return
    four, six = networks.parse(found, "test")
    assert len(four) + len(six) <= len(found)


@given(st.data())
def test_a_good_list_with_one_line_damaged_never_opens_more(data: st.DataObject) -> None:
    lines = list(networks.CLOUDFLARE)
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = data.draw(st.one_of(st.text(max_size=30), st.ip_addresses().map(lambda one: f"{one}/3")))
    try:
        found = cloudflare_refresh.parse_list("\n".join(lines).encode())
    except cloudflare_refresh.RangesRefused:
        return
    v4, v6 = networks.parse(found, "test")
    each: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (*v4, *v6)
    for network in each:
        assert network.is_global
        assert network.prefixlen >= cloudflare_refresh.MIN_PREFIX_LENGTH[network.version]


def test_a_list_that_loses_half_needs_a_second_hour() -> None:
    small = cloudflare_refresh.FetchResult("\n".join([*FOUR[7:], *SIX]).encode())
    tiny = cloudflare_refresh.FetchResult("\n".join([*FOUR[:8], *SIX[:4]]).encode())
    state = cloudflare_refresh.evaluate(cloudflare_refresh.RangesState(), networks.CLOUDFLARE, tiny, 1000.0)
    assert (state.networks, state.last_success) == ((), 0.0)
    assert "lost more than half" in state.last_error
    soon = cloudflare_refresh.evaluate(state, networks.CLOUDFLARE, tiny, 1000.0 + HOUR - 1)
    assert (soon.networks, soon.pending_since) == ((), 1000.0)
    other = cloudflare_refresh.evaluate(
        soon, networks.CLOUDFLARE, cloudflare_refresh.FetchResult("\n".join([*FOUR[1:9], *SIX[:4]]).encode()), 9000.0
    )
    assert other.pending_since == 9000.0
    agreed = cloudflare_refresh.evaluate(soon, networks.CLOUDFLARE, tiny, 1000.0 + HOUR)
    assert len(agreed.networks) == 12
    assert (agreed.last_error, agreed.pending_confirmation) == ("", ())
    assert cloudflare_refresh.evaluate(cloudflare_refresh.RangesState(), networks.CLOUDFLARE, small, 1.0).networks


def test_a_good_answer_between_two_doubted_ones_clears_the_doubt() -> None:
    tiny = cloudflare_refresh.FetchResult("\n".join([*FOUR[:8], *SIX[:4]]).encode())
    pending = cloudflare_refresh.evaluate(cloudflare_refresh.RangesState(), networks.CLOUDFLARE, tiny, 1000.0)
    good = cloudflare_refresh.evaluate(pending, networks.CLOUDFLARE, cloudflare_refresh.FetchResult(GOOD), 2000.0)
    assert good.pending_confirmation == ()
    assert cloudflare_refresh.evaluate(good, networks.CLOUDFLARE, tiny, 9000.0).networks == networks.CLOUDFLARE


class Web:
    """An https server whose answer a test sets."""

    def __init__(self, folder: Path) -> None:
        self.status, self.body, self.headers = 200, GOOD, {"ETag": '"one"'}
        self.seen: list[str | None] = []
        self.length: int | None = None
        self.hang = threading.Event()
        self.hangs = False
        key, self.certificate = folder / "key.pem", folder / "cert.pem"
        words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        argv = ["openssl", *words.split(), "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(argv, check=True, capture_output=True)
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.seen.append(self.headers.get("If-None-Match"))
                self.send_response(web.status)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(web.body) if web.length is None else web.length))
                self.end_headers()
                self.wfile.write(web.body)
                self.wfile.flush()
                if web.hangs:
                    web.hang.wait(60)

            def log_message(self, *_: object) -> None:
                """Keep the tests' output clean."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/ips"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    made = Web(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
    monkeypatch.setattr(networks, "FETCHED", str(tmp_path / "ranges.json"))
    yield made
    made.close()


def test_a_fetched_list_is_kept_and_asked_for_by_its_etag(web: Web) -> None:
    web.body = "\n".join([*FOUR, "1.1.1.0/24", *SIX]).encode()
    state, changed = cloudflare_refresh.refresh(web.url, 1000.0)
    assert (changed, len(state.networks), state.last_success) == (True, 23, 1000.0)
    assert networks.current() == state.networks
    assert os.stat(networks.FETCHED).st_mode & 0o777 == 0o600
    web.status, web.body = 304, b""
    state, changed = cloudflare_refresh.refresh(web.url, 2000.0)
    assert (changed, len(state.networks), state.last_success, web.seen) == (False, 23, 2000.0, [None, '"one"'])


@pytest.mark.parametrize("fault", ["empty", "html", "cut", "large", "error", "hangs", "moved", "lost"])
def test_a_bad_answer_changes_nothing_and_is_told(web: Web, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloudflare_refresh.refresh(web.url, 1000.0)
    before = networks.current()
    monkeypatch.setattr(cloudflare_refresh, "READ_SECONDS", 0.5)
    match fault:
        case "empty":
            web.body = b""
        case "html":
            web.body = b"<html>"
        case "cut":
            web.length = len(GOOD) + 20
        case "large":
            web.body = GOOD + b"\n" * cloudflare_refresh.MAX_BYTES
        case "error":
            web.status = 503
        case "moved":
            web.status, web.headers = 302, {"Location": "http://localhost/"}
        case "hangs":
            web.length, web.hangs = len(GOOD) + 20, True
        case "lost":
            web.close()
    with pytest.raises(cloudflare_refresh.RangesRefused):
        cloudflare_refresh.refresh(web.url, 5000.0)
    state = cloudflare_refresh.load()
    assert networks.current() == before
    assert (state.last_attempt, state.last_success) == (5000.0, 1000.0)
    assert state.last_error


def test_a_trickle_ends_at_the_deadline(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudflare_refresh, "WHOLE_SECONDS", -1.0)
    with pytest.raises(cloudflare_refresh.RangesRefused, match="did not end within"):
        cloudflare_refresh.fetch(web.url, "")


def test_plain_http_is_refused() -> None:
    with pytest.raises(cloudflare_refresh.RangesRefused, match="not https"):
        cloudflare_refresh.fetch("http://localhost/", "")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"networks": ["<html>"]}', '{"networks": 5}', '{"networks": []}'])
def test_a_damaged_file_means_the_bundled_list(fs: FakeFilesystem, text: str) -> None:
    fs.create_file(networks.FETCHED, contents=text)
    assert networks.current() == networks.CLOUDFLARE
    assert cloudflare_refresh.load() == cloudflare_refresh.RangesState()
