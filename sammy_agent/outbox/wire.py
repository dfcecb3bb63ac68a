# SPDX-License-Identifier: Apache-2.0
"""One request of the outbox, and its answer in the terms that the decisions are made in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import requests
from urllib3.util import Timeout

from sammy_agent.calls import CONNECT, DEADLINE, Bearer, message_of, object_of, retry_after
from sammy_agent.identity import Token
from sammy_agent.outbox.channels import MESSAGES, NODE_BOOT_LOG, WORKSPACE_BOOT_LOG, Channel, Lane
from sammy_agent.outbox.decisions import Reply
from sammy_agent.transport import IDEMPOTENCY_HEADER, ControlPlaneTransport, describe

# What an answer of a control plane holds; anything else of status 200 is a portal's.
PROOFS = {MESSAGES.name: "persisted", NODE_BOOT_LOG.name: "success", WORKSPACE_BOOT_LOG.name: "success"}


class Wire:
    """One thread's Session on the transport.

    :param token_for: the token of a lane, None while there is none.
    :param clock_offset: seconds that the control plane's clock is ahead of ours, as far as it is known.
    """

    def __init__(
        self,
        url: str,
        transport: ControlPlaneTransport,
        token_for: Callable[[Channel, Lane], Token | None],
        clock_offset: Callable[[], float] = lambda: 0.0,
        deadline: float = DEADLINE,
    ) -> None:
        self._url, self._token_for, self._clock_offset, self._deadline = url, token_for, clock_offset, deadline
        self._session = transport.session("outbox")
        self._failing = False

    def __call__(self, channel: Channel, lane: Lane, body: bytes) -> Reply:
        """Send it; never raises what the network does."""
        token = self._token_for(channel, lane)
        if token is None:
            return Reply(401, message="there is no token for it here")
        try:
            response = self._session.post(
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
        reply = self._read(channel, token, response)
        self._failing = not reply.accepted
        return reply

    def _read(self, channel: Channel, token: Token, response: requests.Response) -> Reply:
        status, document = response.status_code, object_of(response)
        now = time.time() + self._clock_offset()
        remaining: Any = document.get("remainingCapacity")
        return Reply(
            status,
            accepted=200 <= status < 300 and PROOFS[channel.name] in document,
            error=str(document.get("error", "")),
            message=message_of(response),
            retry_after=retry_after(response.headers.get("Retry-After"), now),
            token_expired=token.is_expired(now),
            remaining=remaining if isinstance(remaining, int) else None,
        )
