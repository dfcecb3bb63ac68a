# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import requests

from sammy_agent.base.errors import Code, Problem
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.client.failures import refused, unreachable
from sammy_agent.daemon.credentials.tokens import Token

GOOD, EXPIRED = Token("t", expires=2000.0), Token("t", expires=500.0)


@pytest.mark.parametrize(
    ("status", "token", "code"),
    [
        (401, GOOD, "token-refused"),
        (403, GOOD, "token-refused"),
        (500, GOOD, "server-error"),
        (401, EXPIRED, "token-expired"),
        (500, EXPIRED, "token-expired"),
        (503, EXPIRED, "server-error"),
        (404, GOOD, "node-unknown"),
        (400, GOOD, "call-refused"),
        (429, GOOD, "call-refused"),
    ],
)
def test_what_a_status_means(status: int, token: Token, code: str) -> None:
    cause = refused(status, "words of the server", token, 1000.0, "n1")
    assert cause.code == code
    assert str(status) in cause.text and "words of the server" in cause.text and cause.next_step


def test_a_redirect_is_somebody_else() -> None:
    assert refused(302, "", GOOD, 1000.0, "n1").code == "not-a-control-plane"


def test_the_end_of_a_token_is_named() -> None:
    assert "1970-01-01T00:08:20" in refused(500, "", EXPIRED, 1000.0, "n1").text


def test_what_silence_means() -> None:
    assert unreachable(requests.ConnectTimeout("x"), "https://x").code == "no-answer"
    assert unreachable(requests.ReadTimeout("x"), "https://x").code == "no-answer"
    refusal = requests.ConnectionError(ConnectionRefusedError(111, "Connection refused"))
    assert unreachable(refusal, "https://x") == Problem(
        Code.UNREACHABLE, "https://x: connection refused", "Is the control plane up and the route to it open?"
    )


def test_contact_is_the_heartbeats_word() -> None:
    told: list[str] = []
    contact = ConnectionStatus(told.append)
    assert contact.snapshot()["state"] == "never" and not contact.is_ok()
    contact.failure("ready", Problem(Code.SERVER_ERROR, "ready fails"))
    assert contact.snapshot()["state"] == "never" and contact.is_failing("ready")
    contact.success("heartbeat")
    assert contact.is_ok() and contact.snapshot()["state"] == "ok"
    for _ in range(3):
        contact.failure("heartbeat", Problem(Code.UNREACHABLE, "away", "look"))
    shown = contact.snapshot()
    assert (shown["state"], shown["failures"]) == ("failing", 3)
    assert shown["cause"] == {"code": "unreachable", "text": "away", "next_step": "look"}
    assert shown["components"]["ready"]["cause"]["text"] == "ready fails"
    contact.success("heartbeat")
    assert contact.snapshot()["failures"] == 0
    assert told == ["in contact with the control plane", "no contact: away", "in contact with the control plane"]
