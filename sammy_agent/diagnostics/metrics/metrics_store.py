# SPDX-License-Identifier: Apache-2.0
"""Samples in a file of their own, metrics.db: losing it does no harm, and its bulk does not displace events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.storage import retention, time_range
from sammy_agent.base.storage.retention import MIB, Retention
from sammy_agent.base.storage.sqlite import Database, seed_autoincrement_from_clock
from sammy_agent.diagnostics.metrics.definitions import NAMES

# Released columns stay; a new metric is a new migration. tests/unit/agent/test_metrics.py holds both to definitions.py.
MIGRATIONS = (
    (
        """CREATE TABLE samples (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, created_at INTEGER NOT NULL, boottime_us INTEGER NOT NULL,
            boot_id TEXT NOT NULL, interval_s REAL,
            cpu_user REAL, cpu_system REAL, cpu_iowait REAL, cpu_steal REAL, load1 REAL, load5 REAL, load15 REAL,
            memory_total INTEGER, memory_available INTEGER, swap_total INTEGER, swap_used INTEGER,
            root_size INTEGER, root_used INTEGER, root_free INTEGER, root_inodes INTEGER, root_inodes_used INTEGER,
            docker_size INTEGER, docker_used INTEGER, docker_free INTEGER, docker_inodes INTEGER,
            docker_inodes_used INTEGER,
            uplink_rx INTEGER, uplink_tx INTEGER, uplink_errors INTEGER, uplink_drops INTEGER,
            bridge_rx INTEGER, bridge_tx INTEGER, bridge_errors INTEGER, bridge_drops INTEGER,
            container_rx INTEGER, container_tx INTEGER, container_errors INTEGER, container_drops INTEGER,
            other_rx INTEGER, other_tx INTEGER, other_errors INTEGER, other_drops INTEGER,
            cpu_some_avg10 REAL, cpu_some_avg60 REAL, cpu_some_total INTEGER,
            cpu_full_avg10 REAL, cpu_full_avg60 REAL, cpu_full_total INTEGER,
            memory_some_avg10 REAL, memory_some_avg60 REAL, memory_some_total INTEGER,
            memory_full_avg10 REAL, memory_full_avg60 REAL, memory_full_total INTEGER,
            io_some_avg10 REAL, io_some_avg60 REAL, io_some_total INTEGER,
            io_full_avg10 REAL, io_full_avg60 REAL, io_full_total INTEGER,
            agent_rss INTEGER, agent_cpu REAL, agent_threads INTEGER)""",
    ),
)
KEPT = Retention(days=30, rows=50_000, bytes=32 * MIB)
TRIM_AFTER_ROWS = 60


class MetricsStore:
    """One file, opened when first needed. Thread-safe; reading waits for no writer. `boot_id` is the present boot's."""

    def __init__(self, path: str, keep: Retention = KEPT, boot_id: str = "", *, read_only: bool = False) -> None:
        self.path = path
        self._keep, self._boot_id = keep, boot_id
        self._database = Database(path, MIGRATIONS, shrinks=True, read_only=read_only)
        self._until_trim = 0

    def __repr__(self) -> str:
        return f"<MetricsStore {self.path}>"

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def on_corruption(self) -> Signal[str]:
        """Emitted in the thread that met it; who is connected must not wait for the store."""
        return self._database.on_corruption

    def snapshot(self, path: str) -> None:
        """Write a consistent copy. sqlite3.Error."""
        self._database.snapshot(path)

    def add(self, sample: Mapping[str, float], at: Timestamp) -> None:
        """Store a sample; unknown names are ignored. sqlite3.Error: it cannot be written."""
        names = [name for name in NAMES if name in sample]
        columns = ", ".join(("created_at", "boottime_us", "boot_id", *names))
        values = (at.wall, at.boot, self._boot_id, *(sample[name] for name in names))
        with self._database.transaction() as db:
            seed_autoincrement_from_clock(db, "samples")
            db.execute(f"INSERT INTO samples ({columns}) VALUES ({', '.join('?' * len(values))})", values)
            self._until_trim -= 1
            if self._until_trim <= 0:
                self._until_trim = TRIM_AFTER_ROWS
                retention.trim(db, "samples", self._keep, clock.now(), self._boot_id)

    def samples(
        self, since: Timestamp | None = None, until: Timestamp | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield samples, oldest first, in constant memory; with `limit` the newest so many.

        :raises sqlite3.Error: the file cannot be read.
        :raises StoreUnusable: another version wrote it.
        """
        condition, values = time_range.join_and(time_range.conditions(since, until, self._boot_id))
        chosen = f"SELECT * FROM samples WHERE {condition} ORDER BY seq"
        if limit is not None:
            chosen = f"SELECT * FROM ({chosen} DESC LIMIT ?) ORDER BY seq"
            values.append(limit)
        with self._database.read() as db:
            cursor = db.execute(chosen, values)
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield dict(zip(names, row, strict=True))
