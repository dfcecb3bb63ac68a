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

from sammy_agent.base.errors import Code, Problem
from sammy_agent.daemon.client.connectivity import Contact
from sammy_agent.daemon.client.failures import (
    CallFailed,
    _somebody_else,
    message_of,
    object_of,
    refused,
    retry_after,
    unreachable,
)
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.tokens import NEW_TOKEN_HINT, Token
from sammy_agent.transport import IDEMPOTENCY_HEADER, ControlPlaneTransport

CONNECT, DEADLINE, BULK_DEADLINE = 10.0, 20.0, 90.0
COMPONENTS = ("heartbeat", "ready", "errors", "certificate", "activity", "packages")


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

    def __init__(self, url: str, identity: NodeTokenStore, transport: ControlPlaneTransport, contact: Contact) -> None:
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
            self.contact.failure(component, failed.problem)
            raise
        self.contact.success(component)
        return answer

    def put(self, component: str, path: str, content: bytes, headers: dict[str, str]) -> Answer:
        """Send bytes below the node's own path; as long as the transport's bulk pool lets them take. CallFailed."""
        whole = f"/api/nodes/{self.identity.node_id}/{path}"
        try:
            answer = self._send(component, whole, content, method="PUT", deadline=BULK_DEADLINE, more=headers)
        except CallFailed as failed:
            self.contact.failure(component, failed.problem)
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
            raise CallFailed(
                self.identity.problem() or Problem(Code.NO_TOKEN, "this node has no token", NEW_TOKEN_HINT)
            )
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
