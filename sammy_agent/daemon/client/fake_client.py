# SPDX-License-Identifier: Apache-2.0
"""The twins of client and node token for tests: no network, no file; a function answers, and all requests are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.client.client import CONNECT_TIMEOUT, DEADLINE, JSON, ControlPlaneClient, Response
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.tokens import NodeToken, Token
from sammy_agent.node.config import AgentConfig

URL = "https://control-plane.test"


@dataclass(frozen=True)
class FakeRequest:
    """A request as it was handed to the client."""

    session: str
    method: str
    path: str
    body: bytes | None
    token: Token | None
    content_type: str
    last_connection: bool
    deadline: float
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body or b"null")


def answer(status: int = 200, document: Mapping[str, Any] | None = None, **headers: str) -> Response:
    """Return an answer with a JSON object; headers as `Retry_After="5"`."""
    return Response(
        status, json.dumps(document or {}).encode(), {name.replace("_", "-"): text for name, text in headers.items()}
    )


def no_answer(error: Exception | None = None) -> Response:
    """Return what becomes of a request without an answer."""
    return Response(None, error=error or ConnectionRefusedError(111, "Connection refused"))


class FakeControlPlaneClient(ControlPlaneClient):
    """Has every request answered by `respond`, and keeps it in `requests`."""

    def __init__(
        self,
        respond: Callable[[FakeRequest], Response] = lambda request: answer(),
        url: str = URL,
        status: ConnectionStatus | None = None,
    ) -> None:
        super().__init__(url, _no_session, status or ConnectionStatus())
        self.respond = respond
        self.requests: list[FakeRequest] = []

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
        """Keep the request and return what `respond` says, which takes no time."""
        request = FakeRequest(
            session, method, path, body, token, content_type, last_connection, deadline, dict(headers or {})
        )
        self.requests.append(request)
        now = self.status.clock.wall()
        return replace(self.respond(request), sent_at=now, received_at=now)


class FakeIdentity(NodeTokenStore):
    """A node's id and token that lie in no file; `node_token` may be set to another, or None."""

    def __init__(self, node_id: str = "n1", text: str | None = "token-of-n1") -> None:
        config = AgentConfig(node_id=node_id, url=URL, token_file=None, ca_file=None, port=8443, debug_push=True)
        super().__init__(Paths("/nonexistent"), config)
        self.node_token = NodeToken(text) if text is not None else None

    def token(self) -> NodeToken | None:
        """Return the token that was set."""
        return self.node_token

    def reload(self) -> NodeToken | None:
        """Return the same again: there is no file."""
        return self.node_token

    def refresh(self, text: str) -> None:
        """Use another token, which must be one. TokenUnusable."""
        self.node_token = NodeToken.parse(text)


def fake_reporter_client(
    respond: Callable[[FakeRequest], Response] = lambda request: answer(),
) -> tuple[ReporterClient, FakeControlPlaneClient]:
    """Return a reporter's client, and the fake below it that answers."""
    client = FakeControlPlaneClient(respond)
    return ReporterClient(client, FakeIdentity()), client


def _no_session(name: str) -> Any:
    raise AssertionError(f"{name}: a fake opens no session")
