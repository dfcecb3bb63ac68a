# SPDX-License-Identifier: Apache-2.0
"""The SQLite layer over real files: reads beside writers, versions, and what other processes do to a file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.storage.reader_pool import BUSY_TIMEOUT
from sammy_agent.base.storage.sqlite import Database

MIGRATIONS = [("CREATE TABLE things (name TEXT)",)]
NEWER = [*MIGRATIONS, ("ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7",)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "own" / "x.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    made = Database(path, MIGRATIONS)
    add(made, "first")
    yield made
    made.close()


def add(database: Database, name: str) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO things (name) VALUES (?)", (name,))


def names(database: Database) -> list[str]:
    with database.read() as db:
        return [row[0] for row in db.execute("SELECT name FROM things ORDER BY rowid")]


@contextlib.contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Hold the file's write lock by a connection of another owner."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_read_does_not_wait_for_a_writer_of_another_process(database: Database, path: str) -> None:
    with write_lock(path):
        began = time.monotonic()
        assert names(database) == ["first"]
        assert time.monotonic() - began < BUSY_TIMEOUT / 2


def test_a_read_does_not_wait_for_a_writer_of_this_process(database: Database) -> None:
    found: list[list[str]] = []
    with database.transaction() as db:
        db.execute("INSERT INTO things VALUES ('not yet')")
        reader = threading.Thread(target=lambda: found.append(names(database)))
        reader.start()
        reader.join(BUSY_TIMEOUT / 2)
        assert found == [["first"]], "the writer's lock is not the readers', and what is not committed is not seen"
    assert names(database) == ["first", "not yet"]


def test_a_writer_does_not_wait_for_a_read(database: Database, path: str) -> None:
    with database.read() as db:
        db.execute("SELECT * FROM things").fetchall()
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
        other.close()


def test_a_read_sees_one_snapshot_from_its_begin_on(database: Database) -> None:
    with database.read() as db:
        add(database, "second")  # after the begin, before the first SELECT
        assert db.execute("SELECT count(*) FROM things").fetchone() == (1,)
        add(database, "third")
        assert db.execute("SELECT count(*) FROM things").fetchone() == (1,)
    assert names(database) == ["first", "second", "third"]


def test_reads_beside_each_other_each_have_their_snapshot(database: Database) -> None:
    with database.read() as one:
        add(database, "second")
        with database.read() as other:
            assert other.execute("SELECT count(*) FROM things").fetchone() == (2,)
        assert one.execute("SELECT count(*) FROM things").fetchone() == (1,)


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"), database.read() as db:
        db.execute("INSERT INTO things VALUES ('smuggled')")
    assert names(database) == ["first"]


def test_a_read_that_raises_costs_the_next_one_nothing(database: Database) -> None:
    with pytest.raises(ValueError, match="of the caller"), database.read():
        raise ValueError("of the caller")
    assert names(database) == ["first"]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_not_there_reads_like_an_empty_one_and_is_not_made(path: str, read_only: bool) -> None:
    assert names(Database(path, MIGRATIONS, read_only=read_only)) == []
    assert not Path(path).parent.exists()


def test_a_file_that_a_full_disk_left_empty_reads_like_an_empty_one(path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).touch()
    assert names(Database(path, MIGRATIONS)) == []


def test_a_file_that_was_removed_or_replaced_is_not_read_on(database: Database, path: str) -> None:
    assert names(database) == ["first"]
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
    assert names(database) == []
    add(database, "of the new file")
    assert names(database) == ["of the new file"]


def test_a_closed_file_is_whole_without_its_journal_and_holds_no_descriptor(database: Database, path: str) -> None:
    assert names(database) == ["first"]
    database.close()
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert not [file for file in held if file.startswith(path)]
    assert os.listdir(os.path.dirname(path)) == ["x.db"], "the last one out puts the log into the file"


def test_only_the_owner_brings_an_older_file_up_to_date(database: Database, path: str) -> None:
    database.close()
    before = Path(path).read_bytes()
    reader = Database(path, NEWER, read_only=True)
    with pytest.raises(StoreUnusable, match="older version"):
        names(reader)
    assert Path(path).read_bytes() == before
    with pytest.raises(sqlite3.OperationalError, match="reading only"):
        add(reader, "second")
    with Database(path, NEWER).read() as db:
        assert db.execute("SELECT * FROM things").fetchall() == [("first", 7)]
    with pytest.raises(StoreUnusable, match="later version"):
        names(database)


@pytest.mark.parametrize("by", ["transaction", "read", "reopened"])
def test_another_process_that_closes_the_file_leaves_the_log_to_us(database: Database, path: str, by: str) -> None:
    """Python's own open() and close() of the file once dropped SQLite's locks: what was written then went nowhere."""
    if by == "read":
        names(database)
    elif by == "reopened":
        Database(path, MIGRATIONS).snapshot(f"{path}.copy")
    other = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM things'); db.close()"
    subprocess.run([sys.executable, "-c", other, path], check=True, timeout=30)
    add(database, "second")
    assert names(Database(path, MIGRATIONS, read_only=True)) == ["first", "second"]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, path: str) -> None:
    Path(path).parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    Path(path).symlink_to(elsewhere)
    with pytest.raises(sqlite3.OperationalError, match="symbolic links"):
        add(Database(path, MIGRATIONS), "first")
    assert elsewhere.read_bytes() == b""


def test_a_file_is_its_owners_alone_with_all_that_sqlite_lays_beside_it(database: Database, path: str) -> None:
    modes = {name: os.stat(f"{path}{name}").st_mode & 0o777 for name in ("", "-wal", "-shm")}
    assert modes == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


def test_a_corrupt_file_stays_where_it_is_if_so_wanted(path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_bytes(b"no database" * 1000)
    database = Database(path, MIGRATIONS, quarantine=False)
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            add(database, "first")
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        names(database)
    assert Path(path).read_bytes() == b"no database" * 1000 and database.corruptions == 0


def test_a_reader_that_meets_a_file_that_is_no_database_has_the_writer_move_it(path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_bytes(b"no database" * 1000)
    database = Database(path, MIGRATIONS)
    told: list[str] = []
    database.on_corruption.connect(told.append)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        names(database)
    add(database, "first")
    assert names(database) == ["first"]
    assert told == [f"{path} is corrupt (file is not a database): moved to {path}.damaged and recreated"]


def test_two_that_make_the_file_at_once_both_succeed(path: str) -> None:
    databases = [Database(path, MIGRATIONS) for _ in range(8)]
    threads = [threading.Thread(target=add, args=(one, "a")) for one in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert names(databases[0]) == ["a"] * 8
