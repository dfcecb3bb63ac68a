# SPDX-License-Identifier: Apache-2.0
"""Samples of the machine: read right from /proc, deltas right when interfaces come and go, kept within bounds."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.storage.retention import Retention
from sammy_agent.daemon.recording import Recording
from sammy_agent.daemon.service_group import ServiceGroup
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.metrics import metrics_store as store_module
from sammy_agent.diagnostics.metrics import snapshot
from sammy_agent.diagnostics.metrics.definitions import METRICS, NAMES
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.diagnostics.metrics.sample import class_of, diff_snapshots
from sammy_agent.diagnostics.metrics.sampler import Sampler
from sammy_agent.diagnostics.metrics.snapshot import Snapshot
from tests.agent.lab import wait_for

BOOT = "b-now"
TICKS = os.sysconf("SC_CLK_TCK")
NET_DEV = """Inter-|   Receive |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0
  eth0: 1000 10 1 2 0 0 0 0 500 5 3 4 0 0 0 0
eth0:1: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0
docker0: 60 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0
veth1a: 8 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A procfs whose every figure is known."""
    folder = tmp_path / "proc"
    for name, text in {
        "stat": "cpu  100 20 30 400 50 6 7 8 90 10\ncpu0 1 2 3\n",
        "loadavg": "0.50 1.25 2.00 1/100 4242\n",
        "meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\nSwapTotal: 80 kB\nSwapFree: 30 kB\n",
        "self/net/dev": NET_DEV,
        "self/stat": f"7 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {3 * TICKS} {2 * TICKS} 0 0 20 0 9 0 5 4096 33 0\n",
        "pressure/cpu": "some avg10=1.50 avg60=2.50 avg300=3.50 total=12345\n",
        "pressure/io": "some avg10=0.00 avg60=0.00 total=1\nfull avg10=4.00 avg60=0.00 total=2\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_every_figure_of_proc_is_read_as_the_kernel_means_it(proc: Path) -> None:
    found = snapshot.read(10.0, str(proc))
    assert found.cpu == {
        "user": 120 / TICKS, "system": 43 / TICKS, "iowait": 50 / TICKS, "steal": 8 / TICKS, "all": 621 / TICKS
    }  # fmt: skip
    levels = found.gauges
    assert (levels["load1"], levels["load5"], levels["load15"]) == (0.5, 1.25, 2.0)
    assert (levels["memory_total"], levels["memory_available"]) == (1_024_000, 614_400)
    assert (levels["swap_total"], levels["swap_used"]) == (81_920, 51_200)
    assert found.interfaces["eth0"] == (1000, 500, 4, 6) and "eth0:1" in found.interfaces
    assert (levels["cpu_some_avg10"], levels["cpu_some_total"], levels["io_full_avg10"]) == (1.5, 12345, 4.0)
    assert "cpu_full_avg10" not in levels and "memory_some_avg10" not in levels, "this kernel does not have them"
    assert (found.agent_cpu, levels["agent_threads"]) == (5.0, 9)
    assert levels["agent_rss"] == 33 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["stat", "loadavg", "meminfo", "self/net/dev", "self/stat", "pressure/cpu"])
@pytest.mark.parametrize("text", ["", "garbage", "cpu x y\n", "a b c d\ne: f\n: 1 2\n"])
def test_a_file_that_is_missing_or_strange_costs_only_its_own_metrics(proc: Path, name: str, text: str) -> None:
    whole = set(snapshot.read(1.0, str(proc)).gauges)
    (proc / name).write_text(text)
    assert len(whole - set(snapshot.read(1.0, str(proc)).gauges)) <= 4
    (proc / name).unlink()
    assert len(whole - set(snapshot.read(1.0, str(proc)).gauges)) <= 4


def test_this_machine_is_read_whole() -> None:
    before = snapshot.read(1.0)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    sample = diff_snapshots(before, snapshot.read(1.05))
    may_lack = re.compile("docker_|(cpu|memory|io)_(some|full)_|root_inodes")
    assert [name for name in NAMES if name not in sample and not may_lack.match(name)] == []
    assert set(sample) <= set(NAMES)
    disk = os.statvfs("/")
    assert sample["root_size"] == disk.f_blocks * disk.f_frsize
    assert 0 < sample["memory_available"] < sample["memory_total"] and sample["agent_rss"] > 1_000_000


def counted(at: float, interfaces: Mapping[str, tuple[int, int, int, int]], **cpu: float) -> Snapshot:
    return Snapshot(at, {"load1": 1.0}, cpu, dict(interfaces), agent_cpu=at / 100)


def test_counters_become_what_came_in_between() -> None:
    before = counted(100, {}, user=10, system=5, iowait=2, steal=0, all=50)
    now = counted(160, {}, user=40, system=20, iowait=1.9, steal=12, all=170)
    sample = diff_snapshots(before, now)
    assert sample["interval_s"] == 60
    assert (sample["cpu_user"], sample["cpu_system"], sample["cpu_steal"]) == (25, 12.5, 10)
    assert sample["cpu_iowait"] == 0, "the kernel's iowait may fall back"
    assert sample["agent_cpu"] == 1.0
    assert diff_snapshots(None, now) == {"load1": 1.0}, "the first one has levels only"


def test_interfaces_that_come_go_and_begin_anew_are_counted_right() -> None:
    before = counted(1, {"eth0": (100, 200, 1, 1), "veth1": (5000, 5000, 0, 0), "veth2": (900, 900, 0, 0)})
    now = counted(2, {"eth0": (150, 260, 2, 4), "veth3": (30, 40, 0, 0), "veth2": (10, 20, 0, 0), "lo": (7, 7, 0, 0)})
    sample = diff_snapshots(before, now)
    assert [sample[f"uplink_{name}"] for name in ("rx", "tx", "errors", "drops")] == [50, 60, 1, 3]
    assert (sample["container_rx"], sample["container_tx"]) == (40, 60), "veth1 is gone, veth2 another, veth3 new"
    assert (sample["other_rx"], sample["bridge_rx"]) == (7, 0)


def test_classes_by_name() -> None:
    classes = {"lo": "other", "eth0": "uplink", "enp1s0": "uplink", "docker0": "bridge", "br-1a2b": "bridge",
               "veth9": "container", "wg0": "other", "bond0": "uplink"}  # fmt: skip
    assert {name: class_of(name) for name in classes} == classes


def test_the_files_columns_are_the_tables_metrics() -> None:
    with sqlite3.connect(":memory:") as db:
        for statements in store_module.MIGRATIONS:
            for statement in statements:
                db.execute(statement)
        columns = [row[1] for row in db.execute("PRAGMA table_info(samples)")]
    assert columns == ["seq", "created_at", "boottime_us", "boot_id", *NAMES]
    assert len(set(NAMES)) == len(METRICS) and all(metric.meaning for metric in METRICS)


def at(seconds: float) -> Timestamp:
    now = clock.now()
    return Timestamp(now.wall + int(seconds * 1e6), now.boot + int(seconds * 1e6))


def test_samples_are_read_back_by_time_oldest_first(tmp_path: Path) -> None:
    store = MetricsStore(str(tmp_path / "own" / "metrics.db"), boot_id=BOOT)
    assert list(store.samples()) == []
    for number in range(10):
        store.add({"load1": float(number), "no_such": 1.0}, at(60 * number - 600))
    assert [sample["load1"] for sample in store.samples()] == list(range(10))
    assert [sample["load1"] for sample in store.samples(since=at(-330), until=at(-90))] == [5, 6, 7, 8]
    assert [sample["load1"] for sample in store.samples(limit=2)] == [8, 9]
    assert next(store.samples())["cpu_user"] is None
    assert Path(store.path).stat().st_mode & 0o777 == 0o600


def test_ten_times_the_bound_leaves_a_bounded_file(tmp_path: Path) -> None:
    path = str(tmp_path / "own" / "metrics.db")
    store = MetricsStore(path, Retention(days=30, rows=500, bytes=10**9), BOOT)
    for number in range(5000):
        store.add(dict.fromkeys(NAMES, 1.5), at(number - 5000))
    assert len(list(store.samples())) <= 560
    assert os.path.getsize(path) < 1024 * 1024


def test_the_sampler_takes_samples_and_counts_what_the_disk_does_not_take(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    store = MetricsStore(str(folder / "metrics.db"), boot_id=BOOT)
    sampler = Sampler(store)
    assert 59 < sampler.run_once() <= 60 and sampler.run_once() > 59
    first, second = store.samples()
    assert first["interval_s"] is None and second["interval_s"] >= 0 and second["load1"] is not None
    store.close()
    (folder / "metrics.db").unlink()
    folder.rename(tmp_path / "away")
    folder.write_text("a file where the folder was")
    sampler.run_once()
    assert sampler.lost == 1 and sampler.problem
    folder.unlink()
    sampler.run_once()
    assert sampler.lost == 1 and not sampler.problem and len(list(store.samples())) == 1


def test_a_damaged_file_of_metrics_is_begun_anew_and_is_an_event(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    Path(paths.metrics).parent.mkdir(parents=True)
    Path(paths.metrics).write_bytes(b"no database" * 1000)
    recording = Recording(paths, BOOT)
    group = ServiceGroup(recording.services())
    assert group.start() is None
    wait_for(Path(paths.metrics + ".damaged").exists, "the damaged one to be moved aside")
    wait_for(lambda: list(recording.metrics.samples()), "a sample in the new file")
    wait_for(lambda: recording.store.events(EventQuery(type_prefix="store.damaged")), "the event")
    group.close()
    (event,) = recording.store.events(EventQuery(type_prefix="store.damaged"))
    assert f"moved to {paths.metrics}.damaged" in event["message"]
    assert [one.type for one in recording.recorder.incidents] == ["store.damaged"]
    assert recording.snapshot("")["metrics"] == {"problem": "", "lost": 0}
