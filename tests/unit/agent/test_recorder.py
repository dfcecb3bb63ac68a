# SPDX-License-Identifier: Apache-2.0
"""Telling events: never waiting, never raising, nothing lost uncounted, and many equal ones as one row."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import NewEvent
from sammy_agent.base.runtime.clock import Timestamp, now
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.control_plane import node_schema
from sammy_agent.diagnostics.event_store import lifecycle
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.incidents import incident_from_event
from sammy_agent.diagnostics.event_store.recorder import MAX_PENDING, MAX_PENDING_INFO, TRIM_INTERVAL, Recorder
from sammy_agent.diagnostics.event_store.throttle import WINDOW, EventThrottle
from tests.agent.lab import wait_for

BOOT = "b-now"


class Disk(EventStore):
    """A store whose disk can be full, or hang."""

    full = False

    def __init__(self, path: str) -> None:
        super().__init__(path, boot_id=BOOT)
        self.free = threading.Event()
        self.free.set()

    def add(self, events: Sequence[NewEvent]) -> int:
        self.free.wait(30)
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return super().add(events)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(str(tmp_path / "own" / "events.db"))


@pytest.fixture
def recorder(disk: Disk) -> Recorder:
    return Recorder(disk, BOOT)


@pytest.fixture
def running(recorder: Recorder, disk: Disk) -> Iterator[Recorder]:
    recorder.start()
    yield recorder
    disk.full = False
    disk.free.set()
    recorder.close()


def told(store: EventStore) -> list[tuple[str, str]]:
    return [(event["type"], event["message"]) for event in store.events(EventQuery(10_000))][::-1]


def test_an_event_has_both_clocks_its_detail_and_its_duration(running: Recorder, disk: Disk) -> None:
    before = now()
    running.record(kinds.CONTACT_REGAINED, "again", detail={"failures": 3}, seconds=1.5)
    (event,) = wait_for(disk.events, "the event")
    assert before.wall <= event["created_at"] <= now().wall and before.boot <= event["boottime_us"] <= now().boot
    assert (event["level"], event["boot_id"], event["duration_us"]) == ("info", BOOT, 1_500_000)
    assert event["detail"] == {"failures": 3}


def test_a_disk_that_hangs_holds_up_no_caller_and_what_is_lost_is_counted(running: Recorder, disk: Disk) -> None:
    disk.free.clear()
    calm, grave = kinds.Kind("x.calm", "info", "", 10**6), kinds.Kind("x.grave", "error", "", 10**6)
    began = time.monotonic()
    for number in range(MAX_PENDING + 500):
        running.record(calm, f"calm {number}")
    for number in range(MAX_PENDING - MAX_PENDING_INFO + 10):
        running.record(grave, f"grave {number}")
    assert time.monotonic() - began < 20, "nobody waited for the 30 s that the disk would have"
    lost = MAX_PENDING + 500 - MAX_PENDING_INFO + 10
    assert running.lost == lost
    disk.free.set()
    # The number comes after what was under way; what still waited then may come behind it.
    wait_for(lambda: len(told(disk)) == MAX_PENDING + 1, "all that is kept, and the number of the lost")
    (number_lost,) = (event for event in disk.events(EventQuery(10_000)) if event["type"] == "events.lost")
    assert number_lost["message"] == f"{lost} events could not be stored"
    assert number_lost["detail"] == {"lost": {"x.calm": lost - 10, "x.grave": 10}}
    kept = [one for one in told(disk) if one[0] != "events.lost"]
    assert kept[0] == ("x.calm", "calm 0") and kept[-1] == ("x.grave", f"grave {MAX_PENDING - MAX_PENDING_INFO - 1}")
    assert len(kept) == MAX_PENDING


def test_a_full_disk_is_said_and_what_waited_is_kept_once_there_is_room(running: Recorder, disk: Disk) -> None:
    disk.full = True
    running.record(kinds.CONTACT_LOST, "no answer")
    wait_for(lambda: running.problem == "database or disk is full", "the problem to be said")
    disk.full = False
    wait_for(lambda: told(disk) == [("contact.lost", "no answer")], "the event")
    assert running.problem == "" and running.lost == 0


def test_no_caller_meets_an_error_and_nothing_unfit_holds_up_the_rest(running: Recorder, disk: Disk) -> None:
    loop: dict[str, object] = {}
    loop["me"] = loop
    running.record(kinds.CONTACT_LOST, "a loop", detail=loop)  # no JSON: logged, not raised
    running.record(kinds.CONTACT_LOST, "undecodable \udcff", detail={"path": "\udcff", "object": object()})
    running.record(kinds.CONTACT_LOST, "x" * 100_000, detail={"long": "y" * 100_000})
    running.record(kinds.CONNECTED, "later")
    wait_for(lambda: told(disk)[-1:] == [("contact.made", "later")], "the later one")
    first, second = disk.events(EventQuery(10))[1:][::-1]
    assert first["message"] == "undecodable ?" and first["detail"]["path"] == "?"
    assert len(second["message"]) == 2000 and set(second["detail"]) == {"cut"}


def test_a_bug_in_writing_loses_those_events_counted_and_no_later_one(
    recorder: Recorder, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> int:
        raise KeyError("a bug")

    recorder.record(kinds.CONTACT_LOST, "one")
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(disk, "add", bug)
        recorder.run_once()
    recorder.record(kinds.CONNECTED, "two")
    recorder.run_once()
    assert told(disk) == [("contact.made", "two"), ("events.lost", "1 events could not be stored")]


def test_threads_that_tell_at_once_lose_nothing(running: Recorder, disk: Disk) -> None:
    kind = kinds.Kind("x.many", "info", "", 10**6)

    def tell(thread: int) -> None:
        for number in range(50):
            running.record(kind, f"{thread}/{number}")

    threads = [threading.Thread(target=tell, args=(thread,)) for thread in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.close()
    messages = [message for _, message in told(disk)]
    assert sorted(messages) == sorted(f"{thread}/{number}" for thread in range(10) for number in range(50))


def test_what_is_told_before_the_start_waits_and_the_end_writes_the_rest(recorder: Recorder, disk: Disk) -> None:
    recorder.record(kinds.AGENT_STARTED, "began")
    assert told(disk) == []
    recorder.start()
    for number in range(30):
        recorder.record(kinds.TRANSPORT_REMOUNTED, f"docker0 is up ({number % 2})")
    recorder.record(kinds.AGENT_STOPPED, "stopped")
    recorder.close()
    types = [type for type, _ in told(disk)]
    assert types == ["agent.started", "transport.remounted", "agent.stopped", "transport.remounted"]
    summary = disk.events(EventQuery(1))[0]
    assert summary["message"].startswith("29 more in 0 s: docker0 is up (1) (15x); docker0 is up (0) (14x)")
    assert summary["detail"]["count"] == 29


def test_a_minutes_summary_and_the_trim_each_hour_come_by_the_recorders_clock(disk: Disk) -> None:
    clock, trims = FakeClock(), []

    def trim() -> int:
        trims.append(clock.monotonic())
        return 0

    disk.trim = trim  # type: ignore[method-assign]
    recorder = Recorder(disk, BOOT, clock)
    burst = kinds.TRANSPORT_REMOUNTED.burst
    for _ in range(burst + 3):
        recorder.record(kinds.TRANSPORT_REMOUNTED, "docker0 is up")
    assert recorder.run_once() == WINDOW, "the summary is due"
    assert len(told(disk)) == burst and len(trims) == 1
    clock.advance(WINDOW)
    assert recorder.run_once() == TRIM_INTERVAL - WINDOW, "nothing is suppressed: the trim is next"
    assert told(disk)[-1] == ("transport.remounted", "3 more in 0 s: docker0 is up (3x)")
    clock.advance(TRIM_INTERVAL - WINDOW)
    assert recorder.run_once() == TRIM_INTERVAL
    assert trims == [1000.0, 1000.0 + TRIM_INTERVAL]


def at(seconds: float, message: str = "r") -> NewEvent:
    moment = int(seconds * 1e6)
    return NewEvent(moment, moment, BOOT, "info", "transport.remounted", message)


def test_a_minute_keeps_the_first_of_a_kind_and_counts_the_rest() -> None:
    throttle = EventThrottle()
    assert [throttle.allow(at(second), 2, second) for second in (0, 1, 2, 3)] == [True, True, False, False]
    assert throttle.due(WINDOW - 0.1) == [] and throttle.next_due() == WINDOW
    (summary,) = throttle.due(WINDOW)
    assert summary.message == "2 more in 1 s: r (2x)" and summary.created_at == 3_000_000
    assert throttle.allow(at(61), 2, 61), "a new minute"
    assert throttle.due(200) == [] and throttle.next_due() is None, "nothing suppressed, nothing to tell"


def test_a_summary_names_only_so_many_messages_but_counts_all() -> None:
    throttle = EventThrottle()
    for number in range(1000):
        throttle.allow(at(1, f"reason {number}"), 0, 1)
    (summary,) = throttle.due(100)
    assert summary.message.startswith("1000 more in 0 s") and summary.message.count("reason") == 5


def test_an_agent_that_began_and_never_ended_died(disk: Disk) -> None:
    def one(boot: str, stopped: bool) -> list[str]:
        recorder = Recorder(disk, boot)
        seen = len(told(disk))
        lifecycle.record_start(recorder, disk, now(), boot)
        if stopped:
            lifecycle.record_stop(recorder, 15, 0, restart=False)
        recorder.run_once()
        return [f"{type}: {message}" for type, message in told(disk)[seen:]]

    began = "agent.started: sammy-agent 0.1.0 began"
    died = "agent.crashed: the previous agent ended: "
    assert one(BOOT, stopped=True) == [began, "agent.stopped: stopped by SIGTERM"]
    assert one(BOOT, stopped=False) == [began]
    assert one(BOOT, stopped=False) == [died + "it was killed or it crashed", began]
    assert one("b-next", stopped=True)[0] == died + "the machine went down without stopping it"
    assert one("b-next", stopped=True)[0] == began


def test_damage_is_an_event_of_the_new_file_and_an_incident_by_the_wires_rules(recorder: Recorder, disk: Disk) -> None:
    disk.on_corruption.connect(lambda words: recorder.record(kinds.STORE_DAMAGED, words))
    Path(disk.path).parent.mkdir()
    Path(disk.path).write_bytes(b"no database" * 1000)
    recorder.record(kinds.AGENT_STARTED, "began")
    recorder.run_once()
    recorder.run_once()
    assert [type for type, _ in told(disk)] == ["agent.started", "store.damaged"]
    (event,) = recorder.incidents
    (kept,) = node_schema.parse_errors(
        b'{"errors": [%s]}' % __import__("json").dumps(incident_from_event(event)).encode()
    )
    assert "moved to" in kept["message"] and kept["incidentId"] == incident_from_event(event)["incidentId"]


def test_each_kind_has_a_name_of_its_own_a_level_and_a_meaning() -> None:
    assert len({kind.type for kind in kinds.KINDS}) == len(kinds.KINDS) > 20
    for kind in kinds.KINDS:
        assert kind.level in kinds.LEVELS and kind.meaning and kind.type.count(".") == 1
        assert kind.level == "error" or not kind.incident


@pytest.mark.needs("root")
def test_a_disk_that_is_really_full_and_one_that_takes_no_writes(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=True)
    store = EventStore(str(folder / "events.db"), boot_id=BOOT)
    recorder = Recorder(store, BOOT)
    kind = kinds.Kind("x.many", "info", "", 10**6)
    try:
        for number in range(700):  # more than the disk holds
            recorder.record(kind, f"{number} " + "x" * 1900)
            if number % 50 == 49:
                recorder.run_once()
        assert "full" in recorder.problem
        kept = len(store.events(EventQuery(10_000)))
        assert 0 < kept < 700, "what was kept can be read on a full disk"
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        recorder.run_once()
        assert "Read-only" in recorder.problem or "readonly" in recorder.problem
        assert len(store.events(EventQuery(10_000))) == kept, "and on one that is read-only"
        subprocess.run(["mount", "-o", "remount,rw,size=16m", str(folder)], check=True)
        recorder.run_once()
        assert recorder.problem == "" and [message.split()[0] for _, message in told(store)] == list(
            map(str, range(700))
        )
        assert recorder.lost == 0
    finally:
        store.close()
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.needs("root")
def test_a_file_system_that_goes_read_only_under_the_open_file(tmp_path: Path) -> None:
    """What ext4 does after an error of its disk; `abort` is the kernel's own switch for it."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 8 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    store = EventStore(str(folder / "own" / "events.db"), boot_id=BOOT)
    recorder = Recorder(store, BOOT)
    try:
        recorder.record(kinds.CONNECTED, "one")
        recorder.run_once()
        subprocess.run(["mount", "-o", "remount,abort", str(folder)], check=True)
        recorder.record(kinds.CONTACT_LOST, "two")
        for _ in range(3):
            recorder.run_once()
            assert recorder.problem and told(store) == [("contact.made", "one")], "said, and still to be read"
        assert recorder.lost == 0, "what waits is not lost yet"
    finally:
        store.close()
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_times_of_this_boot_follow_a_clock_that_was_set_right() -> None:
    later = Timestamp(wall=1_000_000_000, boot=50_000_000)
    assert later.to_wall_clock(7, 40_000_000, same_boot=True) == 990_000_000
    assert later.to_wall_clock(7, 40_000_000, same_boot=False) == 7
