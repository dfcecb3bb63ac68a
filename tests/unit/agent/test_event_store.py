# SPDX-License-Identifier: Apache-2.0
"""The event store: numbers and ids of its own, bounds that hold while it is written, damage, other versions, copies."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord
from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.events.event import NewEvent
from sammy_agent.base.runtime import clock
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.storage.reader_pool import BUSY_TIMEOUT
from sammy_agent.base.storage.retention import DAY, Retention
from sammy_agent.base.storage.sqlite import Database
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher
from sammy_agent.diagnostics.event_store import event_store as store_module
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import MIGRATIONS, EventStore

BOOT = "b-now"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "own" / "events.db")


@pytest.fixture
def store(path: str) -> EventStore:
    return EventStore(path, boot_id=BOOT)


def event(number: int = 0, *, type: str = "test.one", level: str = "info", at: Timestamp | None = None,
          boot: str = BOOT, size: int = 0) -> NewEvent:  # fmt: skip
    wall, boottime = at or clock.now()
    return NewEvent(wall, boottime, boot, level, type, f"event {number}" + "x" * size)


def test_an_event_is_told_as_it_was_given_to_the_microsecond(store: EventStore) -> None:
    store.add([NewEvent(1_700_000_000_123_456, 7_000_001, BOOT, "warn", "contact.lost", "no answer",
                        duration_us=12, detail='{"code": "no-answer"}')])  # fmt: skip
    (told,) = store.events()
    assert {key: value for key, value in told.items() if key not in ("id", "seq")} == {
        "created_at": 1_700_000_000_123_456, "boottime_us": 7_000_001, "boot_id": BOOT, "level": "warn",
        "type": "contact.lost", "message": "no answer", "run_id": "", "step": "", "status": "", "attempt": None,
        "duration_us": 12, "detail": {"code": "no-answer"},
    }  # fmt: skip


def test_the_store_gives_ids_and_numbers_and_nothing_is_lost_to_a_clash(store: EventStore) -> None:
    assert store.add([event()] * 500) == 500, "equal in every field, and events of their own all the same"
    told = store.events(EventQuery(1000))
    assert [one["seq"] for one in told] == sorted({one["seq"] for one in told}, reverse=True)
    assert len({one["id"] for one in told}) == 500 and all(len(one["id"]) == 16 for one in told)


def test_what_is_told_twice_is_kept_once(store: EventStore) -> None:
    twice = event()._replace(key="run/step/1/started")
    assert store.add([twice]) == 1
    assert store.add([twice, event(), twice]) == 1
    assert len(store.events()) == 2


def test_choosing_by_number_level_type_run_and_time(store: EventStore) -> None:
    now = clock.now()
    long_ago = Timestamp(now.wall - DAY, now.boot)
    store.add([
        event(0, type="contact.lost", level="warn", at=long_ago, boot="b-before"),
        event(1, type="contactless", level="debug"),
        event(2, type="contact.regained"),
        event(3, type="store.damaged", level="error")._replace(run_id="r1"),
        event(4, type="100%_sure"),
    ])  # fmt: skip

    def numbers(**what: object) -> list[int]:
        return [int(one["message"].split()[1]) for one in store.events(EventQuery(boot_id=BOOT, **what))]  # type: ignore[arg-type]

    assert numbers() == [4, 3, 2, 1, 0]
    assert numbers(limit=2) == [4, 3]
    third = store.events(EventQuery(3))[-1]["seq"]
    assert numbers(before_seq=third) == [1, 0]
    assert numbers(after_seq=third) == [3, 4], "oldest first, for those who follow"
    assert numbers(level="warn") == [3, 0] and numbers(level="error") == [3]
    assert numbers(type_prefix="contact.") == [2, 0]
    assert numbers(type_prefix="100%_") == [4], "no character means another"
    assert numbers(run_id="r1") == [3]
    hour_ago = Timestamp(now.wall - 3_600_000_000, now.boot - 3_600_000_000)
    assert numbers(since=hour_ago) == [4, 3, 2, 1] and numbers(until=hour_ago) == [0]
    with pytest.raises(ValueError, match="invalid level 'loud'; choose from debug, info, warn, error"):
        store.events(EventQuery(level="loud"))


def test_time_within_this_boot_is_the_boot_clocks(store: EventStore) -> None:
    now = clock.now()
    store.add([event(at=Timestamp(0, now.boot - 1_000_000))])  # it was 1970 by this machine's clock, a second ago
    minute_ago = Timestamp(now.wall - 60_000_000, now.boot - 60_000_000)
    assert len(store.events(EventQuery(since=minute_ago, boot_id=BOOT))) == 1
    assert store.events(EventQuery(since=minute_ago, boot_id="b-later")) == []


def test_ten_times_the_bytes_leave_a_bounded_file(path: str) -> None:
    most = 1024 * 1024
    store = EventStore(path, Retention(days=30, rows=10**9, bytes=most), BOOT)
    largest = written = 0
    while written < 10 * most:
        store.add([event(written, size=1000) for _ in range(100)])
        written += 100 * 1000
        largest = max(largest, os.path.getsize(path))
    margin = store_module.TRIM_AFTER_ROWS * 1300  # what may come between two looks
    assert largest <= most + margin, f"{largest} bytes"
    assert store.events(EventQuery(1))[0]["message"].startswith(f"event {written - 100_000}"), "the newest are there"
    assert len(store.events(EventQuery(10_000))) > 500
    journal = os.path.getsize(path + "-wal")
    assert journal < 8 * 1024 * 1024, f"{journal} bytes of journal"


def test_a_smaller_bound_makes_a_grown_file_smaller(path: str) -> None:
    grown = EventStore(path, Retention(days=30, rows=10**9, bytes=10**9), BOOT)
    for _ in range(20):
        grown.add([event(size=1000) for _ in range(500)])
    grown.close()
    before = os.path.getsize(path)
    bounded = EventStore(path, Retention(days=30, rows=10**9, bytes=before // 5), BOOT)
    for _ in range(20):
        bounded.trim()
    bounded.close()
    assert os.path.getsize(path) < before / 4


def test_rows_and_age_bound_too_and_this_boot_is_judged_by_its_own_clock(path: str) -> None:
    store = EventStore(path, Retention(days=30, rows=600, bytes=10**9), BOOT)
    now = clock.now()
    two_months = 60 * DAY
    store.add([
        event(0, at=Timestamp(now.wall - two_months, now.boot), boot="b-before"),
        event(1, at=Timestamp(now.wall - DAY, now.boot), boot="b-before"),
        event(2, at=Timestamp(now.wall - two_months, now.boot)),  # the clock was wrong at this boot's begin
        event(3, at=Timestamp(now.wall, now.boot - two_months)),
    ])  # fmt: skip
    assert store.trim() == 2
    assert [one["message"] for one in store.events()] == ["event 2", "event 1"]
    store.add([event(number) for number in range(2000)])
    assert len(store.events(EventQuery(10_000))) <= 600


def failed_run(number: int) -> RunRecord:
    return RunRecord(f"20260101T{number:06d}-aa", "b", "i", 10.0, "2026-01-01T00:00:00.000+00:00", Outcome.FAILED)


def test_failed_runs_that_nobody_heard_of_are_never_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_FULL_RUNS", 3)
    monkeypatch.setattr(store_module, "MAX_KNOWN_RUNS", 6)
    store = EventStore(path, Retention(days=1, rows=10, bytes=1), BOOT)
    for number in range(20):
        store.add_run(failed_run(number))
    for number in range(2, 20):
        store.mark_reported(failed_run(number).run_id)
    store.trim()
    assert store.unreported_failures() == [failed_run(0), failed_run(1)]
    store.add_run(failed_run(15))  # its record lies on the disk still; only that it was is known here
    assert len(store.unreported_failures()) == 2, "not reported a second time"


def corrupt(path: str, *, from_page: int = 2) -> None:
    """Write nonsense over all pages but the first ones, behind SQLite's back."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096 * from_page)
        file.write(b"\xa5" * (size - 4096 * from_page))


def test_damage_in_the_middle_of_work_is_moved_aside_told_and_gone(store: EventStore, path: str) -> None:
    told: list[str] = []
    store.on_corruption.connect(told.append)
    store.add([event(number, size=200) for number in range(400)])
    last = store.events(EventQuery(1))[0]["seq"]
    corrupt(path)
    with pytest.raises(sqlite3.DatabaseError):
        for _ in range(100):
            store.add([event(size=200)])
    assert store.add([event(7)]) == 1, "recreated at the next call"
    assert [one["message"] for one in store.events()] == ["event 7"]
    assert store.events(EventQuery(1))[0]["seq"] > last, "the numbers do not fall back"
    assert len(told) == 1 and f"moved to {path}.damaged and recreated" in told[0]
    assert (store.corruptions, store.corruption) == (1, told[0]) and Path(path + ".damaged").exists()


def test_damage_that_only_a_reader_meets_is_acted_on_by_the_next_writer(store: EventStore, path: str) -> None:
    store.add([event(number, size=200) for number in range(400)])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (leaf,) = db.execute("SELECT min(pageno) FROM dbstat WHERE name='events' AND pagetype='leaf'").fetchone() \
            if _has_dbstat(db) else (None,)  # fmt: skip
    db.close()
    if leaf is None:
        pytest.fail("this SQLite has no dbstat: the test cannot find the oldest page")
    with open(path, "r+b") as file:
        file.seek(4096 * (leaf - 1))
        file.write(b"\xa5" * 4096)
    assert store.add([event(401)]) == 1, "the writer appends and never comes to that page"
    with pytest.raises(sqlite3.DatabaseError):
        store.events(EventQuery(1000))
    assert store.corruptions == 0
    with pytest.raises(sqlite3.DatabaseError):
        store.add([event(402)])
    assert store.corruptions == 1 and store.add([event(403)]) == 1


def _has_dbstat(db: sqlite3.Connection) -> bool:
    return ("ENABLE_DBSTAT_VTAB",) in db.execute("PRAGMA compile_options").fetchall()


def test_a_file_that_was_removed_is_made_again(store: EventStore, path: str) -> None:
    store.add([event(0)])
    for name in ("", "-wal", "-shm"):
        Path(path + name).unlink(missing_ok=True)
    store.add([event(1)])
    assert [one["message"] for one in EventStore(path).events()] == ["event 1"]


def test_an_older_version_is_brought_up_and_keeps_its_rows(tmp_path: Path) -> None:
    path, first = str(tmp_path / "x.db"), ("CREATE TABLE things (name TEXT)", "INSERT INTO things VALUES ('old')")
    old = Database(path, [first])
    with old.transaction():
        pass
    old.close()
    newer = [first, ("ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7",)]
    new = Database(path, newer)
    with pytest.raises(StoreUnusable, match="older version"), Database(path, newer, read_only=True).read():
        pass
    with new.transaction() as db:
        assert db.execute("SELECT * FROM things").fetchall() == [("old", 7)]
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    new.close()
    with pytest.raises(StoreUnusable, match="later version"), old.transaction():
        pass
    with pytest.raises(StoreUnusable, match="later version"), old.read():
        pass


def test_a_migration_that_fails_leaves_the_old_version_whole(tmp_path: Path) -> None:
    path, first = str(tmp_path / "x.db"), ("CREATE TABLE things (name TEXT)",)
    with Database(path, [first]).transaction() as db:
        db.execute("INSERT INTO things VALUES ('old')")
    broken = Database(path, [first, ("ALTER TABLE things ADD COLUMN size INTEGER", "NONSENSE")])
    with pytest.raises(sqlite3.OperationalError), broken.transaction():
        pass
    with Database(path, [first]).transaction() as db:
        assert db.execute("SELECT * FROM things").fetchall() == [("old",)]


def test_the_stores_own_file_of_a_version_before_gets_every_later_migration(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    EventStore(path, boot_id=BOOT).add([event(0)])
    monkeypatch.setattr(store_module, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE later (x)",)))
    later = EventStore(path, boot_id=BOOT)
    assert later.add([event(1)]) == 1
    assert [one["message"] for one in later.events()] == ["event 1", "event 0"]


def test_a_copy_made_while_others_write_is_whole_and_a_prefix(store: EventStore, path: str, tmp_path: Path) -> None:
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            store.add([event(number + more) for more in range(5)])
            number += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            copy = str(tmp_path / f"copy{number}.db")
            before = len(store.events(EventQuery(1_000_000)))
            store.snapshot(copy)
            with sqlite3.connect(copy) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                found = [int(row[0].split()[1]) for row in db.execute("SELECT message FROM events ORDER BY seq")]
            db.close()
            assert found == list(range(len(found))) and len(found) % 5 == 0, "a prefix, cut between two writes"
            assert len(found) >= before
            assert os.stat(copy).st_mode & 0o777 == 0o600
    finally:
        over.set()
        writer.join()


def test_reading_waits_for_no_writer_and_makes_no_file(store: EventStore, path: str) -> None:
    assert store.events() == [] and not Path(path).exists()
    store.add([event(0)])
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")  # a writer that does not end
        began = time.monotonic()
        assert len(store.events()) == 1
        assert store.unreported_failures() == []
        assert time.monotonic() - began < BUSY_TIMEOUT / 2
        other.execute("ROLLBACK")
    other.close()


def test_a_run_that_was_in_a_damaged_file_is_fed_again(store: EventStore, path: str, tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    record = failed_run(1)
    runs = Path(paths.runs)
    runs.mkdir(parents=True)
    (runs / f"{record.run_id}.json").write_text(record.to_json())
    watcher = ProvisioningWatcher(paths, store, BOOT)
    watcher.set_instance("i")
    watcher.run_once()
    assert store.unreported_failures() == [record]
    store.close()
    Path(path).write_bytes(b"no database" * 1000)
    watcher.run_once()  # nothing is new, nothing is written
    store.trim()
    assert (store.corruptions, store.events()) == (1, [])
    watcher.run_once()
    assert store.unreported_failures() == [record]


def test_a_damaged_file_on_a_disk_that_takes_no_change_is_an_error_like_any(
    store: EventStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(path).parent.mkdir()
    Path(path).write_bytes(b"no database" * 1000)

    def replace(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", replace)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="cannot be moved: Read-only"):
            store.add([event()])
    assert store.corruptions == 0
