# SPDX-License-Identifier: Apache-2.0
"""The agent's databases in the debug package: of one moment, bounded, scrubbed, and no word of a conversation."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.outbox.channels import Lane, NewRow, Priority
from sammy_agent.daemon.outbox.queue import Outbox
from sammy_agent.diagnostics.debug_package import builder, sqlite_dump
from sammy_agent.diagnostics.debug_package.members import MEMBERS, DatabaseDump, Member
from tests.unit.agent.test_debug_package import opened


def rows(path: Path, limit: int = 1_000_000, private: tuple[str, ...] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    notes: list[str] = []
    found = [json.loads(line) for line in sqlite_dump.lines(str(path), private, limit, 10.0, notes.append)]
    return found, notes


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A database whose two tables are always changed together."""
    with sqlite3.connect(tmp_path / "pairs.db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE one (n INTEGER, body TEXT)")
        db.execute("CREATE TABLE two (n INTEGER PRIMARY KEY, raw BLOB) WITHOUT ROWID")
    db.close()
    return tmp_path / "pairs.db"


def test_all_tables_are_of_one_moment_while_another_writes(pairs: Path) -> None:
    over = threading.Event()

    def write() -> None:
        db = sqlite3.connect(pairs, timeout=30)
        number = 0
        while not over.is_set():
            number += 1
            with db:
                db.execute("INSERT INTO one VALUES (?, 'text')", (number,))
                db.execute("INSERT INTO two VALUES (?, x'00ff')", (number,))
        db.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen: list[int] = []
        end = time.monotonic() + 60
        while len(set(seen)) < 5 and time.monotonic() < end:
            found, notes = rows(pairs)
            head, told = found[0], found[1:]
            newest = [max([row["n"] for row in told if row["table"] == name], default=0) for name in ("one", "two")]
            assert newest == [head["tables"]["one"], head["tables"]["two"]] and newest[0] == newest[1]
            assert not notes
            seen.append(newest[0])
    finally:
        over.set()
        thread.join()
    assert len(set(seen)) == 5, "somebody did write meanwhile"


def test_the_newest_rows_come_first_and_the_rest_is_told(pairs: Path) -> None:
    with sqlite3.connect(pairs) as db:
        db.executemany("INSERT INTO one VALUES (?, ?)", [(number, "x" * 100) for number in range(1000)])
    db.close()
    found, notes = rows(pairs, limit=20_000)
    assert [row["n"] for row in found[1:4]] == [999, 998, 997]
    assert notes == ["older rows of one are left out"] and 50 < len(found) < 100
    found, _ = rows(pairs, private=("body",))
    assert found[1]["body"] == "(100 characters, left out)"


def test_a_damaged_or_absent_database_is_a_note(tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "bad.db").write_text("this is no database at all, whatever its name says" * 20)
    found, notes = rows(tmp_path / "bad.db")
    assert not found and "not a database" in notes[0]
    made = builder.build(
        str(tmp_path / "p.tar.gz"), Paths(str(tmp_path)), members=[DatabaseDump("x.jsonl", "/nowhere.db")]
    )
    assert made.results[0].note == "there is no /nowhere.db"


def test_the_outbox_tells_how_much_waits_and_not_what(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    (member,) = [one for one in MEMBERS if isinstance(one, DatabaseDump) and one.name == "outbox.jsonl"]
    outbox = Outbox(paths.under_root(member.path))
    body = json.dumps({"content": "what a user confided to an agent"})
    outbox.add(Lane("messages", "w1"), [NewRow(f"m{number}", body, Priority.NORMAL) for number in range(3)])
    members: list[Member] = [member]
    builder.build(str(tmp_path / "p.tar.gz"), paths, members=members)
    text = opened(tmp_path / "p.tar.gz")["outbox.jsonl"]
    outbox.close()
    assert "confided" not in text
    told = [json.loads(line) for line in text.splitlines()]
    waiting = [row for row in told[1:] if row["table"] == "rows"]
    assert [row["id"] for row in waiting] == ["m2", "m1", "m0"]
    assert waiting[0]["body"] == f"({len(body)} characters, left out)"
