# SPDX-License-Identifier: Apache-2.0
"""The routes: health for everybody; events, system information and the debug package for the control plane."""

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
from sammy_agent.daemon.server.base_handler import AgentHandler, AuthenticatedHandler, private_tempdir
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.node.provisioning import ProvisioningState
from sammy_agent.node.system_info import SystemInfo

LOG = logging.getLogger(__name__)
MAX_EVENTS = 500
WORDS = {"ready": "healthy", "degraded": "degraded", "failed": "failed"}


def health(level: ProvisioningState) -> str:
    """Return how the node is in one word: healthy, degraded, provisioning or failed."""
    if level.record is None:
        return "degraded" if level.problem else "provisioning"
    return WORDS.get(level.record.outcome.value, "provisioning")


class Health(AgentHandler):
    """GET /health, for everybody; who shows a management token hears more. Always 200, as the wire has it."""

    async def get(self) -> None:
        """Say how the node is."""
        level = self.context.level()
        document: dict[str, Any] = {"status": health(level)}
        if "Authorization" in self.request.headers:
            if not await self.authenticate():
                return
            document |= {"nodeId": self.context.node_id, "agentVersion": __version__, "provisioning": level.summary()}
        self.write_json(document)

    head = get


class Events(AuthenticatedHandler):
    """GET /events?limit=100&cursor=: newest first, those of provisioning among them (SAM's show none of these)."""

    async def get(self) -> None:
        """List them."""
        limit, before = (
            _number(self.get_query_argument(name, text) or "") for name, text in (("limit", "100"), ("cursor", ""))
        )
        if not limit:
            return self.write_error_json(400, f"limit must be a number from 1 to {MAX_EVENTS}")
        if before is None and self.get_query_argument("cursor", ""):
            return self.write_error_json(400, "cursor must be the nextCursor of an answer")
        limit = min(limit, MAX_EVENTS)
        try:
            rows = await self.in_thread(partial(self.context.store.events, EventQuery(limit, before_seq=before)))
        except (sqlite3.Error, OSError, AgentError) as error:
            return self.write_error_json(503, f"the event store cannot be read: {error}")
        following = str(rows[-1]["seq"]) if len(rows) == limit else None
        return self.write_json({"events": [event(row, self.context.node_id) for row in rows], "nextCursor": following})


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


class Export(AuthenticatedHandler):
    """GET /events/export and /metrics/export: a store as one SQLite file, whole at one moment."""

    def initialize(self, store: EventStore | MetricsStore, name: str, **more: Any) -> None:  # type: ignore[override]
        """Take the context, and which store."""
        super().initialize(**more)
        self.store, self.name = store, name

    async def get(self) -> None:
        """Send it."""
        with private_tempdir(self.context) as folder:
            path = os.path.join(folder, "copy.db")
            try:
                await self.in_thread(self.store.snapshot, path)
            except (sqlite3.Error, OSError, AgentError) as error:
                return self.write_error_json(503, f"the {self.name} cannot be copied: {error}")
            file = open(path, "rb")  # noqa: SIM115  (its name goes before it is sent: a kill leaves nothing)
        with file:
            await self.send_file(file, f"{self.name}-{self.context.node_id}.db", "application/vnd.sqlite3")
        return None


class SystemInformation(AuthenticatedHandler):
    """GET /system-info."""

    def initialize(self, info: SystemInfo, **more: Any) -> None:  # type: ignore[override]  # tornado's is for us to set
        """Take the context and the source."""
        super().initialize(**more)
        self.info = info

    async def get(self) -> None:
        """Send it."""
        self.write_json(await self.in_thread(self.info.get))


class DebugPackage(AuthenticatedHandler):
    """GET /debug-package: built on request, one at a time, without secrets."""

    def initialize(self, job: debug_package_job.DebugPackageJob, **more: Any) -> None:  # type: ignore[override]
        """Take the context and the job."""
        super().initialize(**more)
        self.job = job

    def on_connection_close(self) -> None:
        """Cancel the build when the client is gone."""
        self.job.cancel(self)

    async def get(self) -> None:
        """Make it and send it."""
        with private_tempdir(self.context) as folder:
            path = os.path.join(folder, "package.tar.gz")
            try:
                await self.job.make(path, self)
            except debug_package_job.Busy as busy:
                return self.write_error_json(409, busy.problem.text, debug_package_job.RETRY_AFTER)
            except debug_package_job.Cancelled:
                return None
            except AgentError as error:
                LOG.error("GET /debug-package: %s", error)
                return self.write_error_json(500, str(error))
            file = open(path, "rb")  # noqa: SIM115
        name = f"debug-{self.context.node_id}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.tar.gz"
        with file:
            await self.send_file(file, name, "application/gzip")
        return None
