# SPDX-License-Identifier: Apache-2.0
"""The outbox's queue: its bounds, its end, its file."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sammy_agent.base.events.kinds import Kind
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.storage.reader_pool import BUSY_TIMEOUT
from sammy_agent.daemon.client.fake_client import FakeControlPlaneClient
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.workspace_tokens import WorkspaceTokens
from sammy_agent.daemon.outbox.channels import Lane, NewRow, Priority
from sammy_agent.daemon.outbox.queue import Bounds, Outbox, OutboxUnavailable, PoisonState
from sammy_agent.daemon.outbox.service import OutboxService
from sammy_agent.node.config import AgentConfig

LANE = Lane("messages", "w1")


def row(number: int, weight: Priority = Priority.NORMAL, size: int = 10) -> NewRow:
    return NewRow(f"m{number}", json.dumps({"text": "x" * size}), weight)


def test_whoever_adds_while_it_closes_is_kept_or_told_and_never_left_waiting(tmp_path: Path) -> None:
    for attempt in range(20):
        outbox = Outbox(str(tmp_path / f"{attempt}.db"))
        outbox.add(LANE, [row(0)])
        kept: list[int] = []

        def add(first: int, outbox: Outbox = outbox, kept: list[int] = kept) -> None:
            for number in range(first, first + 50):
                try:
                    outbox.add(LANE, [row(number)])
                except OutboxUnavailable:
                    return
                kept.append(number)

        callers = [threading.Thread(target=add, args=(first,), daemon=True) for first in (100, 200, 300)]
        for caller in callers:
            caller.start()
        outbox.close()
        for caller in callers:
            caller.join(60)
        assert not any(caller.is_alive() for caller in callers)
        again = Outbox(str(tmp_path / f"{attempt}.db"))
        assert again.totals()["rows"] == 1 + len(kept)
        again.close()


def test_beyond_its_bounds_the_oldest_of_the_lowest_weight_goes_and_is_counted(tmp_path: Path) -> None:
    low, *_, high = sorted(Priority)
    outbox = Outbox(str(tmp_path / "o.db"), Bounds(rows=5))
    outbox.add(LANE, [row(0, high)])
    outbox.add(LANE, [row(number, low) for number in range(1, 8)])
    assert [one.id for one in outbox.head(LANE, 10)] == ["m0", "m4", "m5", "m6", "m7"]
    totals = outbox.totals()
    assert (totals["rows"], totals["dropped"]) == (5, 3)
    outbox.close()


def test_its_file_is_private_and_what_it_holds_outlives_it(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = Outbox(str(path))
    outbox.add(LANE, [row(1), row(2)])
    outbox.add(LANE, [row(2)])  # an id that is queued
    assert {os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}
    outbox.close()
    again = Outbox(str(path))
    assert [one.id for one in again.head(LANE, 10)] == ["m1", "m2"]
    again.close()


def test_a_damaged_file_is_kept_aside_and_named(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"no database at all " * 1000)
    outbox = Outbox(str(path))
    outbox.add(LANE, [row(1)])
    assert str(path) in outbox.corruption
    assert [one.id for one in outbox.head(LANE, 10)] == ["m1"]
    outbox.close()


def test_a_corrupt_file_that_a_reader_meets_first_is_cleared_away_at_once(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"no database at all " * 1000)
    outbox = Outbox(str(path))
    with pytest.raises(sqlite3.DatabaseError):
        outbox.lanes()
    assert f"moved to {path}.damaged" in outbox.corruption
    assert outbox.lanes() == []
    outbox.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda outbox: [one.id for one in outbox.head(LANE, 10)] == ["m1"],
        lambda outbox: outbox.lanes() == [LANE],
        lambda outbox: outbox.poison_state(LANE) == PoisonState(),
        lambda outbox: outbox.dead_letters() == [],
        lambda outbox: outbox.totals()["rows"] == 1,
    ],
    ids=["head", "lanes", "poison_state", "dead_letters", "totals"],
)
def test_no_reader_waits_for_who_holds_the_write_lock(tmp_path: Path, ask: Callable[[Outbox], bool]) -> None:
    path = str(tmp_path / "o.db")
    outbox = Outbox(path)
    outbox.add(LANE, [row(1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert ask(outbox)
    assert time.monotonic() - began < BUSY_TIMEOUT / 2
    other.execute("ROLLBACK")
    other.close()
    outbox.close()


def test_what_is_known_of_a_bad_row_outlives_the_process_and_goes_with_the_row(tmp_path: Path) -> None:
    path = str(tmp_path / "o.db")
    outbox = Outbox(path)
    outbox.add(LANE, [row(1), row(2)])
    known = PoisonState(2, 3, 1, 1234.5)
    outbox.save_poison_state(LANE, known)
    outbox.close()
    again = Outbox(path)
    assert again.poison_state(LANE) == known
    # a kill between the removal and the next word of it must not cast the suspicion on the row behind
    again.remove(again.head(LANE, 1))
    assert again.poison_state(LANE) == PoisonState() == again.poison_state(Lane("messages", "unknown"))
    again.close()


def test_what_was_set_aside_comes_back_as_it_was(tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path / "o.db"))
    heard: list[Lane] = []
    outbox.add(LANE, [NewRow("m1", "{}", Priority.HIGH, "s1"), row(2), row(3)])
    before = outbox.head(LANE, 1)
    outbox.dead_letter(LANE, outbox.head(LANE, 1), "400: no")
    outbox.dead_letter(LANE, outbox.head(LANE, 1), "400: no")
    assert [one["id"] for one in outbox.dead_letters()] == ["m1", "m2"]
    assert outbox.totals()["set_aside_now"] == 2
    outbox.rows_added.connect(heard.append)
    assert outbox.requeue(["m1", "nonsense"]) == 1 and heard == [LANE]
    assert outbox.requeue() == 1 and outbox.requeue() == 0
    assert [one.id for one in outbox.head(LANE, 1)] == ["m3"], "at the end of their lane"
    outbox.remove(outbox.head(LANE, 1))
    (back,) = outbox.head(LANE, 1)
    assert back._replace(seq=0) == before[0]._replace(seq=0)
    totals = outbox.totals()
    assert (totals["rows"], totals["set_aside"], totals["set_aside_now"]) == (2, 2, 0)
    outbox.close()


def test_what_will_not_arrive_is_told_as_events(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    told: list[tuple[str, str]] = []

    def record(kind: Kind, message: str, **_: object) -> None:
        told.append((kind.type, message))

    delivery = OutboxService(
        FakeControlPlaneClient,
        paths,
        identity=NodeTokenStore(paths, AgentConfig("n1", "https://127.0.0.1:1", None, None, 8443, True)),
        tokens=WorkspaceTokens(paths),
        record=record,
    )
    outbox = delivery.outbox
    outbox._bounds = Bounds(rows=2)
    outbox.add(LANE, [row(number) for number in range(5)])
    outbox.dead_letter(LANE, outbox.head(LANE, 1), "400: role must be one of user")
    outbox.close()
    assert told == [
        ("outbox.dropped", "outbox full: dropped 3 rows (oldest, lowest priority)"),
        (
            "outbox.set-aside",
            "messages of w1: row m3 rejected permanently, moved to dead letters: 400: role must be one of user",
        ),
    ]
    Path(paths.outbox).write_bytes(b"no database" * 1000)
    again = Outbox(paths.outbox)
    again.on_corruption.connect(lambda words: told.append(("damage", words)))
    again.add(LANE, [row(1)])
    again.close()
    assert told[-1][0] == "damage" and "moved to" in told[-1][1]
