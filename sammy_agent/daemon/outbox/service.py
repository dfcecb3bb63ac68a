# SPDX-License-Identifier: Apache-2.0
"""The outbox as a service: the queue on disk, the senders that empty it, and which token each channel takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.client.client import ControlPlaneClient
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.tokens import Token
from sammy_agent.daemon.credentials.workspace_tokens import WorkspaceTokens
from sammy_agent.daemon.outbox.channels import Channel, Lane, Scope
from sammy_agent.daemon.outbox.dispatcher import SENDERS, Dispatcher
from sammy_agent.daemon.outbox.exchange import OutboxHttp
from sammy_agent.daemon.outbox.queue import DeadLetter, Outbox


class OutboxService:
    """What reporters put rows into, and what brings them to the control plane."""

    def __init__(
        self,
        make_client: Callable[[], ControlPlaneClient],
        paths: Paths,
        *,
        identity: NodeTokenStore,
        tokens: WorkspaceTokens,
        record: RecordEvent = discard_event,
    ) -> None:
        self._identity, self._tokens, self._record = identity, tokens, record
        self.outbox = Outbox(paths.outbox)
        self.outbox.dropped.connect(self._dropped)
        self.outbox.dead_lettered.connect(self._dead_lettered)
        self.outbox.on_corruption.connect(lambda message: record(kinds.STORE_DAMAGED, message))

        # a client each: a session has one thread
        exchanges = [OutboxHttp(make_client(), self._token_for, on_refreshed=self._refreshed) for _ in range(SENDERS)]
        self._dispatcher = Dispatcher(self.outbox, exchanges)
        self.workers: tuple[Worker, ...] = self._dispatcher.workers

    def __repr__(self) -> str:
        return f"<OutboxService {self.outbox!r}>"

    def retry_now(self) -> None:
        """End the delays of all lanes: contact is back, or a token is new."""
        self._dispatcher.retry_now()

    def close(self) -> None:
        """Write what waits and close the file."""
        self.outbox.close()

    def snapshot(self) -> dict[str, Any]:
        """Return the `outbox` part of the socket's status."""
        return self._dispatcher.snapshot()

    def _dropped(self, rows: int) -> None:
        self._record(
            kinds.OUTBOX_DROPPED, f"outbox full: dropped {rows} rows (oldest, lowest priority)", detail={"rows": rows}
        )

    def _dead_lettered(self, news: DeadLetter) -> None:
        channel, owner = news.lane
        self._record(kinds.OUTBOX_SET_ASIDE, str(news), detail={"channel": channel, "owner": owner, "id": news.id})

    def _token_for(self, channel: Channel, lane: Lane) -> Token | None:
        return self._identity.token() if channel.scope is Scope.NODE else self._tokens.token(lane.owner)

    def _refreshed(self, channel: Channel, lane: Lane, text: str) -> None:
        if channel.scope is Scope.WORKSPACE:
            self._tokens.refresh(lane.owner, text)
