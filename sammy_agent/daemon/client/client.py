# SPDX-License-Identifier: Apache-2.0
"""One call to the control plane, and what its answer or silence means.

SAM answers a bad token with 500 on most routes, a hotel's portal answers 200 to everything, and a wrong clock looks
like a bad certificate: whoever only counts statuses tells the operator the wrong thing.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.util import Timeout

from sammy_agent.base.errors import AgentError
from sammy_agent.daemon.client.connectivity import Cause, Contact, iso
from sammy_agent.daemon.credentials.node_token import WAY_OUT, Identity, Token
from sammy_agent.transport import IDEMPOTENCY_HEADER, ControlPlaneTransport, certificate_problem, describe

CONNECT, DEADLINE, BULK_DEADLINE = 10.0, 20.0, 90.0
LONGEST_RETRY_AFTER = 300.0
COMPONENTS = ("heartbeat", "ready", "errors", "certificate", "activity", "packages")


class CallFailed(AgentError):
    """A call was not answered as it should be; `status` is None when there was no answer at all."""

    code = "call-failed"

    def __init__(self, cause: Cause, status: int | None = None, retry_after: float = 0.0) -> None:
        self.cause, self.status, self.retry_after = cause, status, retry_after
        super().__init__(cause.text, cause.next_step)


@dataclass(frozen=True)
class Answer:
    """A successful answer."""

    status: int
    document: dict[str, Any]
    text: str


def anything(answer: Answer) -> bool:
    """Accept every answer of a 2xx status."""
    return True


class Bearer(requests.auth.AuthBase):
    """A token as a header. Sets the header itself, so that requests does not look for other credentials in a .netrc."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:  # noqa: D102  (requests')
        request.headers["Authorization"] = f"Bearer {self._token.text}"
        return request


class ControlPlane:
    """The control plane as its reporters call it. Thread-safe as long as each component has one thread."""

    def __init__(self, url: str, identity: Identity, transport: ControlPlaneTransport, contact: Contact) -> None:
        self.url = url
        self.identity, self.contact = identity, contact
        self._sessions = {name: transport.session(name) for name in COMPONENTS}

    def __repr__(self) -> str:
        return f"<ControlPlane {self.url}>"

    def post(
        self,
        component: str,
        path: str,
        body: dict[str, Any] | str,
        *,
        accept: Callable[[Answer], bool] = anything,
        deadline: float = DEADLINE,
    ) -> Answer:
        """Send a call below the node's own path and return its answer; see `post_to`."""
        whole = f"/api/nodes/{self.identity.node_id}/{path}"
        return self.post_to(component, whole, body, accept=accept, deadline=deadline)

    def post_to(
        self,
        component: str,
        path: str,
        body: dict[str, Any] | str,
        *,
        accept: Callable[[Answer], bool] = anything,
        deadline: float = DEADLINE,
    ) -> Answer:
        """Send a call with the node's token and return its answer; the contact is told either way.

        :param body: a JSON object, or text sent as text/plain.
        :param accept: whether an answer of status 2xx is one that a control plane gives.
        :param deadline: seconds for all of it, connecting included.
        :raises CallFailed: with the cause in plain words.
        """
        try:
            answer = self._send(component, path, body, accept=accept, deadline=deadline)
        except CallFailed as failed:
            self.contact.failure(component, failed.cause)
            raise
        self.contact.success(component)
        return answer

    def put(self, component: str, path: str, content: bytes, headers: dict[str, str]) -> Answer:
        """Send bytes below the node's own path; as long as the transport's bulk pool lets them take. CallFailed."""
        whole = f"/api/nodes/{self.identity.node_id}/{path}"
        try:
            answer = self._send(component, whole, content, method="PUT", deadline=BULK_DEADLINE, more=headers)
        except CallFailed as failed:
            self.contact.failure(component, failed.cause)
            raise
        self.contact.success(component)
        return answer

    def _send(
        self,
        component: str,
        path: str,
        body: dict[str, Any] | str | bytes,
        *,
        method: str = "POST",
        accept: Callable[[Answer], bool] = anything,
        deadline: float,
        more: dict[str, str] | None = None,
    ) -> Answer:
        token = self.identity.token()
        if token is None:
            raise CallFailed(self.identity.problem() or Cause("no-token", "this node has no token", WAY_OUT))
        kinds = {str: "text/plain", bytes: "application/gzip"}
        headers = {
            "Content-Type": kinds.get(type(body), "application/json"),
            # lets the transport replay a call whose answer was lost with its connection; all of ours may be repeated
            IDEMPOTENCY_HEADER: uuid.uuid4().hex,
            **(more or {}),
        }
        if self.contact.is_failing(component):
            # What answers badly may be the wrong peer: a portal, or an old process behind a balancer that lives on
            # in this one connection. The attempt after this one asks whoever listens then.
            headers["Connection"] = "close"
        began = time.time()
        try:
            response = self._sessions[component].request(
                method,
                self.url + path,
                data=body
                if isinstance(body, bytes)
                else (body if isinstance(body, str) else json.dumps(body)).encode(),
                headers=headers,
                auth=Bearer(token),
                timeout=Timeout(connect=min(CONNECT, deadline), read=deadline, total=deadline),  # type: ignore[arg-type]
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise CallFailed(unreachable(error, self.url)) from error
        self.learn_clock(response.headers.get("Date"), began)
        return self._judge(response, token, accept)

    def _judge(self, response: requests.Response, token: Token, accept: Callable[[Answer], bool]) -> Answer:
        if not 200 <= response.status_code < 300:
            cause = refused(
                response.status_code, message_of(response), token, self.server_time(), self.identity.node_id
            )
            raise CallFailed(
                cause, response.status_code, retry_after(response.headers.get("Retry-After"), self.server_time())
            )
        answer = Answer(response.status_code, object_of(response), response.text)
        if not accept(answer):
            raise CallFailed(_somebody_else(response.status_code), response.status_code)
        return answer

    def server_time(self) -> float:
        """Return the control plane's clock as far as it is known, in seconds since the epoch."""
        return time.time() + (self.contact.clock_offset or 0.0)

    def learn_clock(self, date: str | None, began: float) -> None:
        """Take an answer's Date header; `began` is when its request was sent."""
        if not date:
            return
        try:
            told = parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError):
            return
        # the header is cut to whole seconds; half a second is its mean error
        self.contact.clock_offset = told + 0.5 - (began + time.time()) / 2


def unreachable(error: BaseException, url: str) -> Cause:
    """Return the cause of a call without an answer."""
    problem = certificate_problem(error)
    if problem is not None and "clock" in problem:
        now = iso(time.time())
        return Cause(
            "clock-or-certificate",
            f"{url}: {problem}. This machine's time is {now}",
            "If that is wrong: timedatectl; else renew the control plane's certificate",
        )
    if problem is not None:
        return Cause(
            "certificate", f"{url}: certificate refused: {problem}", "Check sammy.control_plane.ca_file and url"
        )
    if isinstance(error, requests.Timeout):
        return Cause("no-answer", f"{url}: {describe(error)}", "Is the control plane up and the route to it open?")
    return Cause("unreachable", f"{url}: {describe(error)}", "Is the control plane up and the route to it open?")


def refused(status: int, message: str, token: Token, now: float, node: str) -> Cause:
    """Return the cause of an answer that is not 2xx; `now` by the control plane's clock."""
    said = f"{status}{': ' if message else ''}{message}"
    if status in (401, 403, 500) and token.is_expired(now):
        # SAM answers a bad token with 500: its own word is no help, the token's end is
        return Cause("token-expired", f"this node's token expired at {iso(token.expires)} (answered {said})", WAY_OUT)
    if status in (401, 403):
        return Cause("token-refused", f"the control plane refuses this node's token ({said})", WAY_OUT)
    if 300 <= status < 400:
        return _somebody_else(status)
    if status == 404:
        return Cause("node-unknown", f"the control plane does not know node {node} ({said})", "Add the node there anew")
    if status >= 500:
        return Cause("server-error", f"the control plane answers {said}", "Look at the control plane's own log")
    return Cause("call-refused", f"the control plane refuses the call ({said})", "This may be a bug; please report it")


def _somebody_else(status: int) -> Cause:
    return Cause(
        "not-a-control-plane",
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
