# SPDX-License-Identifier: Apache-2.0
"""Why a request to the control plane failed, in words with a code and the next step."""

from __future__ import annotations

import time
from collections.abc import Callable

import requests

from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.runtime.clock import iso
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.credentials.tokens import NEW_TOKEN_HINT, Token
from sammy_agent.transport import certificate_problem, describe

IS_IT_UP = "Is the control plane up and the route to it open?"


class RequestFailed(AgentError):
    """A request was not answered as it should be; `status` is None when there was no answer at all."""

    def __init__(self, problem: Problem, status: int | None = None, retry_after: float = 0.0) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(problem)


def raise_for_failure(
    response: Response, accept: Callable[[Response], bool], *, url: str, token: Token, node: str, now: float
) -> None:
    """Return when a request was answered with 2xx by a control plane.

    :param accept: whether an answer of status 2xx is one that a control plane gives.
    :param now: by the control plane's clock.
    :raises RequestFailed: it was not.
    """
    if response.status is None:
        raise RequestFailed(unreachable(response.error, url)) from response.error
    if not response.is_success:
        problem = refused(response.status, response.error_message, token, now, node)
        raise RequestFailed(problem, response.status, response.retry_after(now))
    if not accept(response):
        raise RequestFailed(_somebody_else(response.status), response.status)


def unreachable(error: Exception | None, url: str) -> Problem:
    """Return the problem of a request without an answer."""
    error = error or OSError("no answer")
    problem = certificate_problem(error)
    if problem is not None and "clock" in problem:
        return Problem(
            Code.CLOCK_OR_CERTIFICATE,
            f"{url}: {problem}. The local time is {iso(time.time())}",
            "If that is wrong, fix it with timedatectl; otherwise renew the control plane's certificate",
        )
    if problem is not None:
        return Problem(
            Code.CERTIFICATE, f"{url}: certificate refused: {problem}", "Check sammy.control_plane.ca_file and url"
        )
    code = Code.NO_ANSWER if isinstance(error, requests.Timeout) else Code.UNREACHABLE
    return Problem(code, f"{url}: {describe(error)}", IS_IT_UP)


def refused(status: int, message: str, token: Token, now: float, node: str) -> Problem:
    """Return the problem of an answer that is not 2xx; `now` by the control plane's clock."""
    answered = f"{status}: {message}" if message else str(status)
    if status in (401, 403, 500) and token.is_expired(now):
        # SAM answers a bad token with 500: the status is no help, the token's end is
        text = f"this node's token expired at {iso(token.expires)} (answered {answered})"
        return Problem(Code.TOKEN_EXPIRED, text, NEW_TOKEN_HINT)
    if status in (401, 403):
        return Problem(Code.TOKEN_REFUSED, f"the control plane refuses this node's token ({answered})", NEW_TOKEN_HINT)
    if 300 <= status < 400:
        return _somebody_else(status)
    if status == 404:
        text = f"the control plane does not know node {node} ({answered})"
        return Problem(Code.NODE_UNKNOWN, text, "Add the node to the control plane again")
    if status >= 500:
        text = f"the control plane answers {answered}"
        return Problem(Code.SERVER_ERROR, text, "Look at the control plane's own log")
    text = f"the control plane refuses the request ({answered})"
    return Problem(Code.CALL_REFUSED, text, "This may be a bug; please report it")


def _somebody_else(status: int) -> Problem:
    return Problem(
        Code.NOT_A_CONTROL_PLANE,
        f"{status} was answered, but not by a control plane",
        "Is sammy.control_plane.url right, or is a proxy or a login page in between?",
    )
