# SPDX-License-Identifier: Apache-2.0
"""The node's logs for its control plane: GET /logs page by page, /logs/stream as they grow. Without secrets.

LogRoute blocks, so it is done in threads of its own: however many read logs, other routes do not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tornado import websocket

from sammy_agent.base.web.streaming import STALLED
from sammy_agent.daemon.server.base_handler import AgentHandler, AuthenticatedHandler
from sammy_agent.diagnostics.logs import query, reader
from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.redaction.node_secrets import collect_secrets
from sammy_agent.diagnostics.redaction.redactor import Redactor

LOG = logging.getLogger(__name__)
NOT_FOLLOWED = ("until", "limit", "cursor")
MAX_READERS, MAX_STREAMS = 2, 8
SECONDS = 5.0  # for one page; its cursor goes on from there
PING_INTERVAL = 30.0  # seconds
GOING_AWAY, TOO_SLOW = 1001, 1013  # websocket's statuses


class Readers:
    """Limits reading of logs: a few pages at a time, the others wait; a few streams, the others are refused."""

    def __init__(self) -> None:
        self.pages = ThreadPoolExecutor(MAX_READERS, "logs")
        self.streams = ThreadPoolExecutor(MAX_STREAMS, "logs-stream")
        self.open = 0


class LogRoute(AgentHandler):
    """What both routes share."""

    def initialize(self, readers: Readers, **more: Any) -> None:  # type: ignore[override]  # tornado's is for us to set
        """Take the context and the readers."""
        super().initialize(**more)
        self.readers = readers

    def parse_query(self, without: tuple[str, ...] = ()) -> query.Query | None:
        """Return the query; None when it is not valid, which has then been answered."""
        given = {name: text for name in query.PARAMETERS if (text := self.get_query_argument(name, ""))}
        try:
            if lost := [name for name in without if name in given]:
                raise query.QueryInvalid([f"{' and '.join(lost)}: not where logs are followed"])
            return query.parse(given)
        except query.QueryInvalid as error:
            self.write_error_json(400, str(error))
            return None

    def redactor(self) -> Redactor:
        """Return what knows this node's secrets as they are now."""
        return Redactor(collect_secrets(self.context.paths, processes=False))


class Logs(LogRoute, AuthenticatedHandler):
    """GET /logs: a page, newest first."""

    async def get(self) -> None:
        """Send it."""
        if (question := self.parse_query()) is None:
            return
        root = self.context.paths.root
        read = partial(reader.page, question, root, redactor=self.redactor(), seconds=SECONDS)
        try:
            page = await asyncio.get_running_loop().run_in_executor(self.readers.pages, read)
        except query.QueryInvalid as error:  # its cursor is none
            return self.write_error_json(400, str(error))
        self.write_json(page.document())


class LogStream(LogRoute, AuthenticatedHandler, websocket.WebSocketHandler):
    """/logs/stream: the last hundred entries, oldest first, then what comes; one JSON object a message."""

    _task: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Refuse what is not authorised, no valid query, or one stream too many, before there is a websocket."""
        await super().prepare()
        if self._finished:
            return
        question = self.parse_query(NOT_FOLLOWED)
        if question is None:
            return
        if self.readers.open >= MAX_STREAMS:
            return self.write_error_json(503, f"{MAX_STREAMS} are following the logs already", 30)
        self.question = question

    def open(self, *_: str, **__: str) -> None:
        """Begin."""
        self.readers.open += 1
        entries = reader.follow(self.question, self.context.paths.root, redactor=self.redactor())
        self._task = asyncio.ensure_future(self._send(entries))

    def on_message(self, message: str | bytes) -> None:
        """Nothing is expected."""

    def on_close(self) -> None:
        """End with the websocket."""
        self.readers.open -= 1
        if self._task is not None:
            self._task.cancel()

    async def _send(self, entries: Iterator[list[Entry]]) -> None:
        """Send what is read; nothing is read ahead of a client, and one that reads nothing is closed."""
        run = partial(asyncio.get_running_loop().run_in_executor, self.readers.streams)
        turn: asyncio.Future[list[Entry]] | None = None
        try:
            while True:
                turn = run(next, entries)
                for entry in await asyncio.shield(turn):
                    await asyncio.wait_for(self.write_message(json.dumps(entry.document())), STALLED)
        except websocket.WebSocketClosedError:
            pass
        except asyncio.TimeoutError:
            LOG.warning("/logs/stream from %s: client read nothing for %.0f s; connection closed", self.peer, STALLED)
            self._cut(TOO_SLOW, f"nothing was read for {STALLED:.0f} s")
        except Exception as error:
            LOG.exception("/logs/stream: a bug")
            self._cut(GOING_AWAY, f"the logs cannot be read on: {error}")
        finally:
            if turn is not None:
                turn.add_done_callback(lambda done: _end(run, entries, done))

    def _cut(self, status: int, reason: str) -> None:
        self.close(status, reason[:120])  # a reason has 123 bytes


def _end(run: Any, entries: Iterator[list[Entry]], turn: asyncio.Future[list[Entry]]) -> None:
    """Close a generator when its last turn is over; in its thread, for it may wait for programs."""
    with contextlib.suppress(asyncio.CancelledError):
        turn.exception()
    with contextlib.suppress(RuntimeError):  # the pool is closed
        run(entries.close)  # type: ignore[attr-defined]  # it is a generator
