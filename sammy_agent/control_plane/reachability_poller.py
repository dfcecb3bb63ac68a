# SPDX-License-Identifier: Apache-2.0
"""Polls each running node's server once a minute and records whether it is reachable and why not.

A node's firewall watchdog counts on these requests: rules that lock the control plane out are noticed by their absence.
A node that sends no heartbeats any more is polled a tenth as often.
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
from sammy_agent.control_plane.node_client import NodeClient
from sammy_agent.control_plane.storage.database import Store

LOG = logging.getLogger(__name__)
POLL_INTERVAL = 60.0
UNHEALTHY_FACTOR = 10  # times less often, for a node without heartbeats
MAX_CONCURRENT = 4
JITTER = 0.1
MIN_TICK = 0.05


class ReachabilityPoller:
    """Belongs to the event loop's thread; requests block in a pool of others.

    :param every: seconds between two polls of a node.
    """

    def __init__(self, store: Store, node_client: NodeClient, every: float = POLL_INTERVAL) -> None:
        self._store, self._node_client, self._every = store, node_client, every
        self._due: dict[str, float] = {}
        self._polls: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="reachability")

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                try:
                    self._start_polls()
                except sqlite3.Error as error:
                    LOG.warning("the nodes cannot be read: %s", error)
                await asyncio.sleep(max(MIN_TICK, self._every / 20))
        finally:
            for task in self._polls:
                task.cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_polls(self) -> None:
        for row in self._store.nodes():
            if self._is_due(row, time.monotonic()):
                task = asyncio.ensure_future(self._poll(row))
                self._polls.add(task)
                task.add_done_callback(self._polls.discard)

    def _is_due(self, row: Mapping[str, Any], now: float) -> bool:
        """Tell whether to poll a node, and note the next time."""
        if row["status"] != NODE_RUNNING or not row["ip_address"] or now < self._due.get(row["id"], 0.0):
            return False
        pause = self._every * (UNHEALTHY_FACTOR if node_schema.health(row, time.time()) == UNHEALTHY else 1)
        self._due[row["id"]] = now + jittered(pause, JITTER)
        return True

    async def _poll(self, row: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        why = await loop.run_in_executor(self._pool, self._probe, row)
        values: dict[str, Any] = {"reachable": why is None, "unreachable_why": why}
        if why is None:
            values["reachable_at"] = time.time()
        if (why is None) != row["reachable"]:
            LOG.log(logging.INFO if why is None else logging.WARNING, "node %s: %s", row["id"], why or "reachable")
        try:
            self._store.update_node(row["id"], values)
        except sqlite3.Error as error:
            LOG.warning("node %s: its reachability could not be saved: %s", row["id"], error)

    def _probe(self, row: Mapping[str, Any]) -> str | None:
        """Return None when the node answers, else why not."""
        try:
            self._node_client.get(row, NODE_SERVER_HEALTH).close()
        except ControlPlaneError as error:
            return str(error)
        return None
