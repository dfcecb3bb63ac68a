# SPDX-License-Identifier: Apache-2.0
"""One request of the outbox, and its answer in the terms that the retry policy decides on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sammy_agent.base.wire.claims import REFRESHED_TOKEN
from sammy_agent.daemon.client.client import DEADLINE, ControlPlaneClient, Response
from sammy_agent.daemon.credentials.tokens import Token
from sammy_agent.daemon.outbox.channels import (
    ERRORS,
    MESSAGES,
    NODE_BOOT_LOG,
    WORKSPACE_BOOT_LOG,
    Channel,
    Lane,
)
from sammy_agent.daemon.outbox.retry_policy import ResponseInfo
from sammy_agent.transport import describe

# What a control plane's answer holds, or its status where it holds nothing; any other 2xx is a portal's.
SUCCESS_MARKERS: dict[str, str | int] = {
    MESSAGES.name: "persisted",
    NODE_BOOT_LOG.name: "success",
    WORKSPACE_BOOT_LOG.name: "success",
    ERRORS.name: 204,
}


class OutboxHttp:
    """One sender's requests; the client is its own, so that each sender has its own sessions, one per channel.

    :param token_for: the token of a lane, None while there is none.
    :param on_refreshed: called with a new token that an answer carried.
    """

    def __init__(
        self,
        client: ControlPlaneClient,
        token_for: Callable[[Channel, Lane], Token | None],
        *,
        deadline: float = DEADLINE,
        on_refreshed: Callable[[Channel, Lane, str], None] = lambda channel, lane, token: None,
    ) -> None:
        self._client, self._token_for, self._deadline = client, token_for, deadline
        self._on_refreshed = on_refreshed
        self._failing = False

    def __call__(self, channel: Channel, lane: Lane, body: bytes) -> ResponseInfo:
        """Send a request; never raises what the network does."""
        token = self._token_for(channel, lane)
        if token is None:
            return ResponseInfo(401, message="there is no token for it here")
        response = self._client.request(
            channel.name,
            "POST",
            channel.path.format(node=lane.owner, workspace=lane.owner),
            body,
            token=token,
            last_connection=self._failing,
            deadline=self._deadline,
        )
        status = self._client.status
        info = response_info(response, channel, token, status.server_time(response.clock_offset))
        self._failing = not info.accepted
        if info.accepted:
            status.update_clock_offset(response.clock_offset)
        refreshed = response.document.get(REFRESHED_TOKEN)
        if info.accepted and isinstance(refreshed, str):
            self._on_refreshed(channel, lane, refreshed)
        return info


def response_info(response: Response, channel: Channel, token: Token, now: float) -> ResponseInfo:
    """Return an answer as far as it matters to the outbox; `now` by the control plane's clock."""
    if response.status is None:
        return ResponseInfo(None, message=describe(response.error) if response.error else "")
    document, marker = response.document, SUCCESS_MARKERS[channel.name]
    remaining: Any = document.get("remainingCapacity")
    return ResponseInfo(
        response.status,
        accepted=response.is_success and (marker == response.status or marker in document),
        error=str(document.get("error", "")),
        message=response.error_message,
        retry_after=response.retry_after(now),
        token_expired=token.is_expired(now),
        remaining=remaining if isinstance(remaining, int) else None,
    )
