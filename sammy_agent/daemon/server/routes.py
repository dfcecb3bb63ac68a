# SPDX-License-Identifier: Apache-2.0
"""What is answered: health to everybody, events, system information and the debug package to the control plane."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError
from sammy_agent.daemon.server import debug_package_job
from sammy_agent.daemon.server.base_handler import Handler, Managed, workshop
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.node.provisioning import Provisioning
from sammy_agent.node.system_info import SystemInfo

LOG = logging.getLogger(__name__)
MOST_EVENTS = 500
WORDS = {"ready": "healthy", "degraded": "degraded", "failed": "failed"}


def health(level: Provisioning) -> str:
    """Return how the node is in one word: healthy, degraded, provisioning or failed."""
    if level.record is None:
        return "degraded" if level.problem else "provisioning"
    return WORDS.get(level.record.outcome.value, "provisioning")


class Health(Handler):
    """GET /health, for everybody; who shows a management token hears more. Always 200, as the wire has it."""

    async def get(self) -> None:
        """Say how the node is."""
        level = self.parts.level()
        document: dict[str, Any] = {"status": health(level)}
        if "Authorization" in self.request.headers:
            if not await self.let_in():
                return
            document |= {"nodeId": self.parts.node_id, "agentVersion": __version__, "provisioning": level.summary()}
        self.answer(document)

    head = get


class Events(Managed):
    """GET /events?limit=100&cursor=: newest first, those of provisioning among them (SAM's show none of these)."""

    async def get(self) -> None:
        """List them."""
        limit, before = (
            _number(self.get_query_argument(name, text) or "") for name, text in (("limit", "100"), ("cursor", ""))
        )
        if not limit:
            return self.refuse(400, f"limit must be a number from 1 to {MOST_EVENTS}")
        if before is None and self.get_query_argument("cursor", ""):
            return self.refuse(400, "cursor must be the nextCursor of an answer")
        limit = min(limit, MOST_EVENTS)
        try:
            rows = await self.in_thread(partial(self.parts.store.events, EventQuery(limit, before_seq=before)))
        except (sqlite3.Error, OSError, AgentError) as error:
            return self.refuse(503, f"the event store cannot be read: {error}")
        following = str(rows[-1]["seq"]) if len(rows) == limit else None
        return self.answer({"events": [event(row, self.parts.node_id) for row in rows], "nextCursor": following})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def event(row: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Return an event of the store in the wire's shape; what the store knows beyond it is in `detail`."""
    known = {
        "step": row["step"],
        "status": row["status"],
        "attempt": row["attempt"],
        "durationMs": None if row["duration_us"] is None else row["duration_us"] / 1000,
        "runId": row["run_id"],
        "bootId": row["boot_id"],
    }
    at = datetime.fromtimestamp(row["created_at"] / 1e6, timezone.utc)
    return {
        "id": row["id"],
        "nodeId": node,
        "level": row["level"],
        "type": row["type"],
        "message": row["message"],
        "detail": {
            **{name: value for name, value in known.items() if value not in (None, "")},
            **(row["detail"] or {}),
        },
        "createdAt": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


class Export(Managed):
    """GET /events/export and /metrics/export: a store as one SQLite file, whole at one moment."""

    def initialize(self, store: EventStore | MetricsStore, name: str, **more: Any) -> None:  # type: ignore[override]
        """Take the parts, and which store."""
        super().initialize(**more)
        self.store, self.name = store, name

    async def get(self) -> None:
        """Send it."""
        with workshop(self.parts) as folder:
            path = os.path.join(folder, "copy.db")
            try:
                await self.in_thread(self.store.snapshot, path)
            except (sqlite3.Error, OSError, AgentError) as error:
                return self.refuse(503, f"the {self.name} cannot be copied: {error}")
            file = open(path, "rb")  # noqa: SIM115  (its name goes before it is sent: a kill leaves nothing)
        with file:
            await self.send_file(file, f"{self.name}-{self.parts.node_id}.db", "application/vnd.sqlite3")
        return None


class SystemInformation(Managed):
    """GET /system-info."""

    def initialize(self, info: SystemInfo, **more: Any) -> None:  # type: ignore[override]  # tornado's is for us to set
        """Take the parts and who gathers."""
        super().initialize(**more)
        self.info = info

    async def get(self) -> None:
        """Send it."""
        self.answer(await self.in_thread(self.info.get))


class DebugPackage(Managed):
    """GET /debug-package: made for the asker, one at a time, scrubbed."""

    def initialize(self, maker: debug_package_job.Maker, **more: Any) -> None:  # type: ignore[override]
        """Take the parts and who makes it."""
        super().initialize(**more)
        self.maker = maker

    def on_connection_close(self) -> None:
        """Make nothing for somebody who is gone."""
        self.maker.give_up(self)

    async def get(self) -> None:
        """Make it and send it."""
        with workshop(self.parts) as folder:
            path = os.path.join(folder, "package.tar.gz")
            try:
                await self.maker.make(path, self)
            except debug_package_job.Busy as busy:
                return self.refuse(409, busy.problem.text, debug_package_job.RETRY_AFTER)
            except debug_package_job.GivenUp:
                return None
            except AgentError as error:
                LOG.error("GET /debug-package: %s", error)
                return self.refuse(500, str(error))
            file = open(path, "rb")  # noqa: SIM115
        name = f"debug-{self.parts.node_id}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.tar.gz"
        with file:
            await self.send_file(file, name, "application/gzip")
        return None
