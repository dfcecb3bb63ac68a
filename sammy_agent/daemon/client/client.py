# SPDX-License-Identifier: Apache-2.0
"""The one HTTP client of the control plane: reporters, outbox and the fetcher of its keys send their requests here.

Timeouts, headers and the token are the same for all of them, and an answer that is accepted tells the control plane's
clock. `fake_client.py` has its twin for tests.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import requests
from urllib3.util import Timeout

from sammy_agent.base import untrusted
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.credentials.tokens import Token
from sammy_agent.transport import IDEMPOTENCY_HEADER

# Seconds; a deadline holds for the whole request, connecting included.
CONNECT_TIMEOUT, DEADLINE, BULK_DEADLINE = 10.0, 20.0, 90.0
MAX_RETRY_AFTER = 300.0
JSON, TEXT, GZIP = "application/json", "text/plain", "application/gzip"


@dataclass(frozen=True)
class Response:
    """An answer, of whatever status; without one `status` is None and `error` says why."""

    status: int | None
    content: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    error: Exception | None = None
    sent_at: float = 0.0
    received_at: float = 0.0

    @property
    def is_success(self) -> bool:
        """Tell whether the status is 2xx. A login page's is too: whoever asked looks at the content as well."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode(errors="replace")

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content's JSON object, an empty one when it is none."""
        try:
            return untrusted.read_object(self.content, repair=True)
        except untrusted.InvalidJSON:
            return {}

    @property
    def error_message(self) -> str:
        """The content's `message`, on one line."""
        return " ".join(str(self.document.get("message", "")).split())[:200]

    def retry_after(self, now: float) -> float:
        """Return the Retry-After header, seconds or a date, as seconds; `now` by the control plane's clock."""
        value = self.headers.get("Retry-After")
        if not value:
            return 0.0
        if value.isascii() and value.isdigit():
            return min(float(value), MAX_RETRY_AFTER)
        at = untrusted.read_http_date(value)
        return 0.0 if at is None else min(max(0.0, at - now), MAX_RETRY_AFTER)

    @property
    def clock_offset(self) -> float | None:
        """The server's clock minus ours by the Date header, in seconds; None where it says none.

        Whether it is the control plane's is known once the answer is accepted: a portal's clock sets nothing.
        """
        date = untrusted.read_http_date(self.headers.get("Date", ""))
        # the header is cut to whole seconds; half a second is its mean error
        return None if date is None else date + 0.5 - (self.sent_at + self.received_at) / 2


class Bearer(requests.auth.AuthBase):
    """A token as a header, set by itself: else requests would look for other credentials, in a .netrc."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:  # noqa: D102  (requests')
        request.headers["Authorization"] = f"Bearer {self._token.text}"
        return request


class ControlPlaneClient:
    """Sends requests to one control plane. Thread-safe as long as each session has one thread.

    :param open_session: the transport's `session`; called once per name, by the first request.
    :param status: told the control plane's clock; whether a request was successful is for its sender to say.
    """

    def __init__(self, url: str, open_session: Callable[[str], requests.Session], status: ConnectionStatus) -> None:
        self.url, self.status = url, status
        self._open_session = open_session
        self._sessions: dict[str, requests.Session] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def request(
        self,
        session: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: Token | None = None,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        last_connection: bool = False,
        connect_timeout: float = CONNECT_TIMEOUT,
        deadline: float = DEADLINE,
    ) -> Response:
        """Send a request and return what came of it; raises neither for a status nor for what the network does.

        :param last_connection: close the connection afterwards. What answered badly may be the wrong peer, a portal or
            an old process behind a balancer, which lives on in this one connection: the next request gets another.
        :param deadline: seconds for all of it, connecting included.
        """
        if session not in self._sessions:
            self._sessions[session] = self._open_session(session)
        sent_at = time.time()
        try:
            answer = self._sessions[session].request(
                method,
                self.url + path,
                data=body,
                headers=_headers(body, content_type, headers, last_connection=last_connection),
                auth=None if token is None else Bearer(token),
                timeout=Timeout(  # type: ignore[arg-type]  # urllib3's own, which the transport takes
                    connect=min(connect_timeout, deadline), read=deadline, total=deadline
                ),
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            return Response(None, error=error)
        return Response(answer.status_code, answer.content, answer.headers, sent_at=sent_at, received_at=time.time())


def _headers(
    body: bytes | None, content_type: str, more: Mapping[str, str] | None, *, last_connection: bool
) -> dict[str, str]:
    headers = dict(more or {})
    if body is not None:
        headers["Content-Type"] = content_type
        # lets the transport replay a request whose answer was lost with its connection; all of ours may be repeated
        headers[IDEMPOTENCY_HEADER] = uuid.uuid4().hex
    if last_connection:
        headers["Connection"] = "close"
    return headers
