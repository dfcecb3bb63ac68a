# SPDX-License-Identifier: Apache-2.0
"""Goes round the running nodes once a minute and knocks: can their own servers be reached, and if not, why.

It is also the rhythm that a node's firewall listens for: rules that lock the control plane out are noticed by what no
longer comes in. A node that does not beat any more is asked every tenth time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.runtime.backoff import jittered
from sammy_agent.base.wire.endpoints import NODE_SERVER_HEALTH
from sammy_agent.base.wire.statuses import NODE_RUNNING, UNHEALTHY
from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.node_client import Management
from sammy_agent.control_plane.storage.database import Store

LOG = logging.getLogger(__name__)
EVERY = 60.0
SELDOM = 10  # times less often, for a node that is silent
AT_ONCE = 4
JITTER = 0.1
SHORTEST_TICK = 0.05


class Rounds:
    """The visits. Of the loop's thread; the waiting is done in others.

    :param every: seconds between two visits to a node.
    """

    def __init__(self, store: Store, management: Management, every: float = EVERY) -> None:
        self._store, self._management, self._every = store, management, every
        self._due: dict[str, float] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rounds")

    async def go(self) -> None:
        """Go round until cancelled."""
        try:
            while True:
                try:
                    self._begin_visits()
                except sqlite3.Error as error:
                    LOG.warning("the nodes cannot be read: %s", error)
                await asyncio.sleep(max(SHORTEST_TICK, self._every / 20))
        finally:
            for task in self._under_way:
                task.cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin_visits(self) -> None:
        for row in self._store.nodes():
            if self._is_due(row, time.monotonic()):
                task = asyncio.ensure_future(self._visit(row))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    def _is_due(self, row: Mapping[str, Any], now: float) -> bool:
        """Tell whether to visit a node, and note the next time."""
        if row["status"] != NODE_RUNNING or not row["ip_address"] or now < self._due.get(row["id"], 0.0):
            return False
        pause = self._every * (SELDOM if node_schema.health(row, time.time()) == UNHEALTHY else 1)
        self._due[row["id"]] = now + jittered(pause, JITTER)
        return True

    async def _visit(self, row: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        why = await loop.run_in_executor(self._pool, self._knock, row)
        values: dict[str, Any] = {"reachable": why is None, "unreachable_why": why}
        if why is None:
            values["reachable_at"] = time.time()
        if (why is None) != row["reachable"]:
            LOG.log(logging.INFO if why is None else logging.WARNING, "node %s: %s", row["id"], why or "can be reached")
        try:
            self._store.update_node(row["id"], values)
        except sqlite3.Error as error:
            LOG.warning("node %s: what was found cannot be kept: %s", row["id"], error)

    def _knock(self, row: Mapping[str, Any]) -> str | None:
        """Return None when the node answers, else why it does not."""
        try:
            self._management.ask(row, NODE_SERVER_HEALTH).close()
        except ControlPlaneError as error:
            return str(error)
        return None
