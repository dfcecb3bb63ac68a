# SPDX-License-Identifier: Apache-2.0
"""Why a request to the control plane failed, in words with a code and the next step."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.runtime.clock import iso
from sammy_agent.daemon.credentials.tokens import NEW_TOKEN_HINT, Token
from sammy_agent.transport import certificate_problem, describe

LONGEST_RETRY_AFTER = 300.0


class CallFailed(AgentError):
    """A call was not answered as it should be; `status` is None when there was no answer at all."""

    def __init__(self, problem: Problem, status: int | None = None, retry_after: float = 0.0) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(problem)


def unreachable(error: BaseException, url: str) -> Problem:
    """Return the cause of a call without an answer."""
    problem = certificate_problem(error)
    if problem is not None and "clock" in problem:
        now = iso(time.time())
        return Problem(
            Code.CLOCK_OR_CERTIFICATE,
            f"{url}: {problem}. This machine's time is {now}",
            "If that is wrong: timedatectl; else renew the control plane's certificate",
        )
    if problem is not None:
        return Problem(
            Code.CERTIFICATE, f"{url}: certificate refused: {problem}", "Check sammy.control_plane.ca_file and url"
        )
    if isinstance(error, requests.Timeout):
        return Problem(Code.NO_ANSWER, f"{url}: {describe(error)}", "Is the control plane up and the route to it open?")
    return Problem(Code.UNREACHABLE, f"{url}: {describe(error)}", "Is the control plane up and the route to it open?")


def refused(status: int, message: str, token: Token, now: float, node: str) -> Problem:
    """Return the cause of an answer that is not 2xx; `now` by the control plane's clock."""
    said = f"{status}{': ' if message else ''}{message}"
    if status in (401, 403, 500) and token.is_expired(now):
        # SAM answers a bad token with 500: its own word is no help, the token's end is
        return Problem(
            Code.TOKEN_EXPIRED, f"this node's token expired at {iso(token.expires)} (answered {said})", NEW_TOKEN_HINT
        )
    if status in (401, 403):
        return Problem(Code.TOKEN_REFUSED, f"the control plane refuses this node's token ({said})", NEW_TOKEN_HINT)
    if 300 <= status < 400:
        return _somebody_else(status)
    if status == 404:
        return Problem(
            Code.NODE_UNKNOWN, f"the control plane does not know node {node} ({said})", "Add the node there anew"
        )
    if status >= 500:
        return Problem(Code.SERVER_ERROR, f"the control plane answers {said}", "Look at the control plane's own log")
    return Problem(
        Code.CALL_REFUSED, f"the control plane refuses the call ({said})", "This may be a bug; please report it"
    )


def _somebody_else(status: int) -> Problem:
    return Problem(
        Code.NOT_A_CONTROL_PLANE,
        f"{status} was answered, but not by a control plane",
        "Is sammy.control_plane.url right, or is a proxy or a login page in between?",
    )


def object_of(response: requests.Response) -> dict[str, Any]:
    """Return an answer's JSON object, an empty one when it is none."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def message_of(response: requests.Response) -> str:
    """Return what an answer says in words, on one line."""
    message = object_of(response).get("message", "")
    return " ".join(str(message).split())[:200]


def retry_after(value: str | None, now: float) -> float:
    """Return a Retry-After header, seconds or a date, as seconds, at most 300; `now` by the control plane's clock."""
    if not value:
        return 0.0
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now), LONGEST_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return 0.0
