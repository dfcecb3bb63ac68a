# SPDX-License-Identifier: Apache-2.0
"""The client as reporters use it: with the node's token, below the node's own path, and the connection status told.

SAM answers a bad token with 500 on most routes, a hotel's portal answers 200 to everything, and a wrong clock looks
like a bad certificate: to count statuses alone would tell the operator the wrong thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sammy_agent.base.errors import Code, Problem
from sammy_agent.daemon.client.client import BULK_DEADLINE, DEADLINE, GZIP, JSON, TEXT, ControlPlaneClient, Response
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.client.failures import RequestFailed, raise_for_failure
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.tokens import NEW_TOKEN_HINT


def accept_any(response: Response) -> bool:
    """Accept every answer of a 2xx status."""
    return True


class ReporterClient:
    """Requests of the node's reporters, each over a session of its own. Thread-safe, one thread per component."""

    def __init__(self, client: ControlPlaneClient, identity: NodeTokenStore) -> None:
        self._client, self.identity = client, identity

    def __repr__(self) -> str:
        return f"<ReporterClient {self.url}>"

    @property
    def url(self) -> str:
        """The control plane's address."""
        return self._client.url

    @property
    def contact(self) -> ConnectionStatus:
        """How the reporters' last requests went."""
        return self._client.status

    def post(
        self,
        component: str,
        path: str,
        body: dict[str, Any] | str,
        *,
        accept: Callable[[Response], bool] = accept_any,
        deadline: float = DEADLINE,
    ) -> Response:
        """Send a request with the node's token and return its answer; the connection status is told either way.

        :param path: of base/wire/endpoints; the node's id is filled in, other ids by the caller.
        :param body: a JSON object, or text sent as text/plain.
        :param accept: whether an answer of status 2xx is one that a control plane gives.
        :param deadline: seconds for all of it, connecting included.
        :raises RequestFailed: with the problem in plain words.
        """
        text, content_type = (body, TEXT) if isinstance(body, str) else (json.dumps(body), JSON)
        return self._send(
            component,
            "POST",
            self._own(path),
            text.encode(),
            content_type=content_type,
            accept=accept,
            deadline=deadline,
        )

    def put(self, component: str, path: str, content: bytes, headers: Mapping[str, str]) -> Response:
        """Send gzip bytes with the node's token, with a deadline for large ones. RequestFailed."""
        return self._send(
            component,
            "PUT",
            self._own(path),
            content,
            content_type=GZIP,
            headers=headers,
            accept=accept_any,
            deadline=BULK_DEADLINE,
        )

    def _own(self, path: str) -> str:
        return path.format(node=self.identity.node_id)

    def _send(
        self,
        component: str,
        method: str,
        path: str,
        body: bytes,
        *,
        content_type: str,
        accept: Callable[[Response], bool],
        deadline: float,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        status = self._client.status
        try:
            token = self.identity.token()
            if token is None:
                raise RequestFailed(
                    self.identity.problem() or Problem(Code.NO_TOKEN, "this node has no token", NEW_TOKEN_HINT)
                )
            response = self._client.request(
                component,
                method,
                path,
                body,
                token=token,
                content_type=content_type,
                headers=headers,
                last_connection=status.is_failing(component),
                deadline=deadline,
            )
            raise_for_failure(
                response, accept, url=self.url, token=token, node=self.identity.node_id,
                now=status.server_time(response.clock_offset),
            )  # fmt: skip
        except RequestFailed as failed:
            status.failure(component, failed.problem)
            raise
        status.update_clock_offset(response.clock_offset)
        status.success(component)
        return response
