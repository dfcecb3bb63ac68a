# SPDX-License-Identifier: Apache-2.0
"""One request of the outbox, and its answer in the terms that the decisions are made in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import requests
from urllib3.util import Timeout

from sammy_agent.daemon.client.client import CONNECT, DEADLINE, Bearer
from sammy_agent.daemon.client.failures import message_of, object_of, retry_after
from sammy_agent.daemon.credentials.tokens import Token
from sammy_agent.daemon.outbox.channels import (
    CHANNELS,
    ERRORS,
    MESSAGES,
    NODE_BOOT_LOG,
    WORKSPACE_BOOT_LOG,
    Channel,
    Lane,
)
from sammy_agent.daemon.outbox.retry_policy import Reply
from sammy_agent.transport import IDEMPOTENCY_HEADER, ControlPlaneTransport, describe

# What a control plane's answer holds, or its status where it holds nothing; any other 2xx is a portal's.
PROOFS: dict[str, str | int] = {
    MESSAGES.name: "persisted",
    NODE_BOOT_LOG.name: "success",
    WORKSPACE_BOOT_LOG.name: "success",
    ERRORS.name: 204,
}
RENEWED = "refreshedToken"


class Wire:
    """One thread's Sessions on the transport, one a channel.

    :param token_for: the token of a lane, None while there is none.
    :param clock_offset: seconds that the control plane's clock is ahead of ours, as far as it is known.
    :param on_renewed: told a new token that an answer carried.
    """

    def __init__(
        self,
        url: str,
        transport: ControlPlaneTransport,
        token_for: Callable[[Channel, Lane], Token | None],
        clock_offset: Callable[[], float] = lambda: 0.0,
        *,
        deadline: float = DEADLINE,
        on_renewed: Callable[[Channel, Lane, str], None] = lambda channel, lane, token: None,
    ) -> None:
        self._url, self._token_for, self._clock_offset, self._deadline = url, token_for, clock_offset, deadline
        self._sessions = {channel.name: transport.session(channel.name) for channel in CHANNELS.values()}
        self._on_renewed = on_renewed
        self._failing = False

    def __call__(self, channel: Channel, lane: Lane, body: bytes) -> Reply:
        """Send it; never raises what the network does."""
        token = self._token_for(channel, lane)
        if token is None:
            return Reply(401, message="there is no token for it here")
        try:
            response = self._sessions[channel.name].post(
                self._url + channel.path.format(owner=lane.owner),
                data=body,
                headers={
                    "Content-Type": "application/json",
                    # every row has an id that the server knows: what is repeated has no effect
                    IDEMPOTENCY_HEADER: uuid.uuid4().hex,
                    # what answered badly may be the wrong peer on a connection that lives on
                    **({"Connection": "close"} if self._failing else {}),
                },
                auth=Bearer(token),
                timeout=Timeout(  # type: ignore[arg-type]
                    connect=min(CONNECT, self._deadline), read=self._deadline, total=self._deadline
                ),
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            self._failing = True
            return Reply(None, message=describe(error))
        document = object_of(response)
        reply = self._read(channel, token, response, document)
        self._failing = not reply.accepted
        if reply.accepted and isinstance(document.get(RENEWED), str):
            self._on_renewed(channel, lane, document[RENEWED])
        return reply

    def _read(self, channel: Channel, token: Token, response: requests.Response, document: dict[str, Any]) -> Reply:
        status, proof = response.status_code, PROOFS[channel.name]
        now = time.time() + self._clock_offset()
        remaining: Any = document.get("remainingCapacity")
        return Reply(
            status,
            accepted=200 <= status < 300 and (proof == status or proof in document),
            error=str(document.get("error", "")),
            message=message_of(response),
            retry_after=retry_after(response.headers.get("Retry-After"), now),
            token_expired=token.is_expired(now),
            remaining=remaining if isinstance(remaining, int) else None,
        )
