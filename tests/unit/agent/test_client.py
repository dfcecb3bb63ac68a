# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of the control plane: what it sends, what an answer or none becomes, who is told; and its fake."""

from __future__ import annotations

import inspect
import json
import time
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from sammy_agent.base.errors import Code
from sammy_agent.base.untrusted import read_http_date
from sammy_agent.base.wire import endpoints
from sammy_agent.daemon.client.client import ControlPlaneClient, Response
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.fake_client import (
    URL,
    FakeControlPlaneClient,
    FakeIdentity,
    answer,
    fake_reporter_client,
    no_answer,
)
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.credentials.tokens import NodeToken, Token
from sammy_agent.daemon.outbox.channels import CHANNELS, ERRORS, MESSAGES, Channel, Lane
from sammy_agent.daemon.outbox.exchange import SUCCESS_MARKERS, OutboxHttp
from sammy_agent.daemon.outbox.retry_policy import ResponseInfo
from sammy_agent.daemon.server.jwks import MAX_KEY_SET_BYTES, KeysUnavailable, fetcher
from sammy_agent.transport import IDEMPOTENCY_HEADER


class Sessions:
    """Sessions of a transport that answer `outcome` and keep what they were told to send."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.opened: list[str] = []
        self.sent: list[dict[str, Any]] = []

    def session(self, name: str) -> Any:
        self.opened.append(name)
        return self

    def request(self, method: str, url: str, **how: Any) -> Any:
        self.sent.append({"method": method, "url": url, **how})
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def received(status: int, content: bytes = b"{}", **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code, made._content = status, content
    made.headers.update({name.replace("_", "-"): text for name, text in headers.items()})
    return made


def client_of(outcome: Any) -> tuple[ControlPlaneClient, Sessions]:
    sessions = Sessions(outcome)
    return ControlPlaneClient(URL, sessions.session, ConnectionStatus()), sessions


def test_a_request_is_bounded_in_time_follows_nobody_and_may_be_replayed() -> None:
    client, sessions = client_of(received(204, b""))
    assert client.request("a", "POST", "/x", b"body", token=Token("t"), deadline=7.0).status == 204
    (sent,) = sessions.sent
    assert (sent["method"], sent["url"], sent["data"], sent["allow_redirects"]) == ("POST", URL + "/x", b"body", False)
    timeout = sent["timeout"]
    assert (timeout.connect_timeout, timeout.total) == (7.0, 7.0)
    assert sent["headers"]["Content-Type"] == "application/json" and sent["headers"][IDEMPOTENCY_HEADER]
    assert "Connection" not in sent["headers"]
    prepared = requests.Request("POST", URL, auth=sent["auth"]).prepare()
    assert prepared.headers["Authorization"] == "Bearer t"


def test_a_session_per_name_is_opened_once_and_a_get_carries_neither_token_nor_key() -> None:
    client, sessions = client_of(received(200))
    for name in ("a", "b", "a"):
        client.request(name, "GET", "/x", last_connection=name == "b")
    assert sessions.opened == ["a", "b"]
    assert [sent["headers"] for sent in sessions.sent] == [{}, {"Connection": "close"}, {}]
    assert all(sent["auth"] is None for sent in sessions.sent)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 500, 503])
def test_no_status_is_an_exception(status: int) -> None:
    client, _ = client_of(received(status, b'{"message": "a\\n b"}', Retry_After="400"))
    response = client.request("a", "POST", "/x", b"")
    assert (response.status, response.is_success) == (status, status == 200)
    assert response.error_message == "a b" and response.retry_after(0.0) == 300.0


@pytest.mark.parametrize("error", [requests.ConnectTimeout("x"), OSError(113, "No route to host"), ValueError("url")])
def test_silence_is_none_either(error: Exception) -> None:
    response = client_of(error)[0].request("a", "POST", "/x", b"")
    assert response.status is None and response.error is error and not response.is_success


@pytest.mark.parametrize("content", [b"", b"[1]", b"<html>", b"\xff", b"[" * 100_000], ids=lambda content: content[:6])
def test_what_is_not_a_json_object_is_an_empty_one(content: bytes) -> None:
    response = Response(200, content)
    assert response.document == {} and response.error_message == "" and isinstance(response.text, str)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0.0), ("7", 7.0), ("9999", 300.0), ("-7", 0.0), ("soon", 0.0), ("Thu, 01 Jan 1970 00:17:00 GMT", 20.0)],
)
def test_retry_after_is_seconds_or_a_date_by_the_control_planes_clock(header: str, seconds: float) -> None:
    assert answer(503, Retry_After=header).retry_after(1000.0) == seconds


def test_the_clock_is_learned_of_accepted_answers_alone() -> None:
    """What stood in the control plane's place for a moment, a portal or worse, set the offset."""
    reporter, fake = fake_reporter_client()
    clock = fake.status.clock
    ahead = format_datetime(datetime.fromtimestamp(clock.wall() + 3600, timezone.utc), usegmt=True)
    for refused in (answer(404, Date=ahead), answer(200, Date=ahead)):
        fake.respond = lambda request, refused=refused: refused  # type: ignore[misc]
        with pytest.raises(RequestFailed):
            reporter.post("heartbeat", "heartbeat", {}, accept=lambda response: False)
        assert fake.status.clock_offset is None
    fake.respond = lambda request: answer(200, Date=ahead)
    reporter.post("heartbeat", "heartbeat", {})
    assert 3599 <= fake.status.server_time() - clock.wall() <= 3601
    fake.respond = lambda request: answer(200, Date="yesterday")
    reporter.post("heartbeat", "heartbeat", {})
    assert fake.status.server_time() - clock.wall() > 3598


NOON = 1795953600.0  # 2026-11-29 12:00:00 UTC


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 29 Nov 2026 12:00:00 GMT", NOON),
        ("Sunday, 29-Nov-26 12:00:00 GMT", NOON),
        ("Sun Nov 29 12:00:00 2026", NOON),
        ("Sun, 29 Nov 2026 12:00:00", NOON),
        ("Sun, 29 Nov 2026 12:00:00 -0000", NOON),
        ("Sun, 29 Nov 2026 13:00:00 +0100", NOON),
        ("Sun, 29 Nov 99999999999 12:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Sun, 29 Nov 2026 12:00:00 +99999999", None),
        ("yesterday", None),
        ("", None),
        ("9" * 6000, None),
    ],
)
def test_a_date_is_gmt_whatever_the_machines_zone_and_never_a_bug(
    monkeypatch: pytest.MonkeyPatch, date: str, seconds: float | None
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert read_http_date(date) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_reporter_sends_with_the_nodes_token_and_id_and_the_status_is_told() -> None:
    reporter, fake = fake_reporter_client()
    reporter.post("ready", endpoints.READY, {"a": 1})
    reporter.post("activity", "/api/x", "text")
    reporter.put("packages", "/api/nodes/{node}/x/1", b"gz", {"X-Content-SHA256": "0"})
    first, second, third = fake.requests
    assert (first.path, first.document, first.content_type) == ("/api/nodes/n1/ready", {"a": 1}, "application/json")
    assert (second.path, second.body, second.content_type) == ("/api/x", b"text", "text/plain")
    assert third.path == "/api/nodes/n1/x/1"
    assert (third.method, third.content_type, third.headers["X-Content-SHA256"]) == ("PUT", "application/gzip", "0")
    assert third.deadline > first.deadline
    assert {request.token for request in fake.requests} == {NodeToken("token-of-n1")}
    assert sorted(reporter.contact.snapshot()["components"]) == ["activity", "packages", "ready"]


def test_after_a_failure_the_next_request_is_its_connections_last() -> None:
    reporter, fake = fake_reporter_client()
    fake.respond = lambda request: answer(503, Retry_After="5")
    for _ in range(2):
        with pytest.raises(RequestFailed) as failed:
            reporter.post("ready", endpoints.READY, {})
    assert (failed.value.status, failed.value.retry_after) == (503, 5.0)
    fake.respond = lambda request: no_answer()
    with pytest.raises(RequestFailed) as failed:
        reporter.post("errors", endpoints.ERRORS, {})
    assert failed.value.status is None and failed.value.problem.code is Code.UNREACHABLE
    fake.respond = lambda request: answer()
    reporter.post("ready", endpoints.READY, {})
    reporter.post("ready", endpoints.READY, {})
    assert [request.last_connection for request in fake.requests] == [False, True, False, True, False]


def test_without_a_token_nothing_is_sent_and_a_login_page_is_no_success() -> None:
    fake = FakeControlPlaneClient(lambda request: Response(200, b"<html>Welcome"))
    with pytest.raises(RequestFailed) as failed:
        ReporterClient(fake, FakeIdentity(text=None)).post("ready", endpoints.READY, {})
    assert failed.value.problem.code is Code.NO_TOKEN and fake.requests == []
    reporter = ReporterClient(fake, FakeIdentity())
    with pytest.raises(RequestFailed) as failed:
        reporter.post("ready", endpoints.READY, {}, accept=lambda response: "status" in response.document)
    assert failed.value.problem.code is Code.NOT_A_CONTROL_PLANE and reporter.contact.is_failing("ready")


LANE = Lane(MESSAGES.name, "w1")


def test_the_outbox_sends_by_the_same_client_and_reads_its_answers_shape() -> None:
    refreshed: list[str] = []
    fake = FakeControlPlaneClient(lambda request: answer(200, {"persisted": 1, "refreshedToken": "new"}))
    send = OutboxHttp(fake, lambda channel, lane: Token("t"), on_refreshed=lambda *told: refreshed.append(told[-1]))
    assert send(MESSAGES, LANE, b"{}").accepted and refreshed == ["new"]
    fake.respond = lambda request: answer(200, {"refreshedToken": "portal's"})
    assert not send(MESSAGES, LANE, b"{}").accepted and refreshed == ["new"], "a portal's token is none"
    fake.respond = lambda request: answer(409, {"error": "E", "message": "m", "remainingCapacity": 3}, Retry_After="2")
    info = send(MESSAGES, LANE, b"{}")
    assert info == ResponseInfo(409, error="E", message="m", retry_after=2.0, remaining=3)
    fake.respond = lambda request: no_answer()
    assert send(ERRORS, Lane(ERRORS.name, "n1"), b"{}") == ResponseInfo(None, message="connection refused")
    assert [request.last_connection for request in fake.requests] == [False, False, True, True]
    assert [request.path for request in fake.requests[2:]] == ["/api/workspaces/w1/messages", "/api/nodes/n1/errors"]


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=lambda channel: channel.name)
def test_every_channel_has_a_mark_of_success(channel: Channel) -> None:
    marker = SUCCESS_MARKERS[channel.name]
    good = answer(marker) if isinstance(marker, int) else answer(200, {marker: 1})
    fake = FakeControlPlaneClient(lambda request: good)
    assert OutboxHttp(fake, lambda channel, lane: Token("t"))(channel, LANE, b"{}").accepted


def test_a_lane_without_a_token_is_held_and_an_expired_token_is_told() -> None:
    fake = FakeControlPlaneClient(lambda request: answer(500))
    assert OutboxHttp(fake, lambda channel, lane: None)(MESSAGES, LANE, b"{}").status == 401 and fake.requests == []
    assert OutboxHttp(fake, lambda channel, lane: Token("t", expires=1.0))(MESSAGES, LANE, b"{}").token_expired


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (no_answer(), "connection refused"),
        (answer(404), "answers 404"),
        (Response(200, b"x" * (MAX_KEY_SET_BYTES + 1)), "not a key set"),
    ],
    ids=["silence", "404", "too long"],
)
def test_keys_that_cannot_be_fetched_say_why(response: Response, words: str) -> None:
    with pytest.raises(KeysUnavailable, match=words):
        fetcher(FakeControlPlaneClient(lambda request: response))()


def test_keys_are_fetched_without_a_token_over_a_session_of_their_own() -> None:
    fake = FakeControlPlaneClient(lambda request: answer(200, {"keys": []}))
    assert json.loads(fetcher(fake)()) == {"keys": []}
    (request,) = fake.requests
    assert (request.session, request.method, request.token) == ("keys", "GET", None)


def test_the_fake_takes_what_the_client_takes() -> None:
    assert inspect.signature(FakeControlPlaneClient.request) == inspect.signature(ControlPlaneClient.request)
    with pytest.raises(AssertionError, match="opens no session"):
        ControlPlaneClient.request(FakeControlPlaneClient(), "a", "GET", "/")
