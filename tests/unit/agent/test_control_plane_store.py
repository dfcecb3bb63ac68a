# SPDX-License-Identifier: Apache-2.0
"""The control plane's file: of every version that was released, beside another process, on a disk that fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sammy_agent.base.errors import StoreUnusable
from sammy_agent.base.storage.reader_pool import BUSY_TIMEOUT
from sammy_agent.control_plane.storage.artifacts import Artifacts
from sammy_agent.control_plane.storage.database import FILE, MIGRATIONS, Store
from sammy_agent.control_plane.storage.sessions import SessionStore
from sammy_agent.control_plane.storage.workspaces import WorkspaceStore

RELEASED = Path(__file__).parent / "control_plane_schema_3.sql"
INCIDENT = "01JDVJ0000000000000000000A"


def schema(path: Path) -> set[str]:
    with sqlite3.connect(path) as db:
        return {row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


@pytest.fixture
def released(tmp_path: Path) -> str:
    """A folder with the file that a control plane made before it stood on the shared layer."""
    db = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    db.executescript(RELEASED.read_text())
    db.close()
    return str(tmp_path)


def test_a_released_file_opens_with_all_that_it_holds_and_is_written_on(released: str, tmp_path: Path) -> None:
    store = Store(released)
    assert store.get_setting("url") == "https://192.0.2.7:8787"
    assert [node["id"] for node in store.nodes()] == ["n1", "n2"]
    node = store.require_node("n1")
    assert (node["status"], node["metrics"], node["agent_port"]) == ("running", '{"cpuLoadAvg1": 0.5}', 8443)
    assert [one["message"] for one in store.incidents("n1")] == ["docker: no"]
    rows = WorkspaceStore(store)
    assert [one["content"] for one in rows.messages("w1", 10)] == ["hello ✓"]
    assert [one["step"] for one in rows.log("n1", None)] == ["docker"]
    assert [one["activity"] for one in SessionStore(store).of_project("p1", 0.0)] == ["prompting"]
    assert [one["artifactId"] for one in Artifacts(store, released).listed("n1")] == ["x-safe"]
    store.add_node("n3", "b-3")
    store.close()
    again = Store(released)
    assert [one["id"] for one in again.nodes()] == ["n1", "n2", "n3"]
    again.close()


def test_a_new_file_has_the_released_ones_schema(released: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    Store(str(tmp_path / "new"), create=True).close()
    assert schema(tmp_path / "new" / FILE) == schema(tmp_path / FILE), "a released migration was changed"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_older_file_is_brought_up_to_date_and_keeps_its_rows(tmp_path: Path, version: int) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    for statements in MIGRATIONS[:version]:
        for statement in statements:
            db.execute(statement)
    db.execute("INSERT INTO nodes (id, created_at, updated_at) VALUES ('old', 1.0, 1.0)")
    db.execute("INSERT INTO settings VALUES ('url', 'https://192.0.2.7')")
    db.execute(f"PRAGMA user_version={version}")
    db.commit()
    db.close()
    store = Store(str(tmp_path))
    assert store.require_node("old")["url"] is None
    assert store.get_setting("url") == "https://192.0.2.7"
    assert WorkspaceStore(store).add("w1", "old")
    store.close()
    with sqlite3.connect(tmp_path / FILE) as again:
        assert again.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert again.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_file_is_refused_and_left_as_it_is(released: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    before = (tmp_path / FILE).read_bytes()
    for create in (False, True):
        with pytest.raises(StoreUnusable, match="later version"):
            Store(released, create=create)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_corrupt_file_is_refused_and_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    for create in (False, True):
        with pytest.raises(StoreUnusable, match="not a database"):
            Store(str(tmp_path), create=create)
    assert (tmp_path / FILE).read_bytes() == b"no database" * 1000
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_a_verb_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="no control plane has run there yet"):
        Store(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, folder: store.get_setting("url"),
        lambda store, folder: store.nodes(),
        lambda store, folder: store.node("n1"),
        lambda store, folder: store.incidents("n1"),
        lambda store, folder: WorkspaceStore(store).workspace("w1"),
        lambda store, folder: WorkspaceStore(store).workspaces(),
        lambda store, folder: WorkspaceStore(store).messages("w1", 10),
        lambda store, folder: WorkspaceStore(store).log("n1", None),
        lambda store, folder: SessionStore(store).of_project("p1", 0.0),
        lambda store, folder: Artifacts(store, folder).listed("n1"),
    ],
    ids=[
        "setting",
        "nodes",
        "node",
        "incidents",
        "workspace",
        "workspaces",
        "messages",
        "log",
        "sessions",
        "artifacts",
    ],
)
def test_what_only_reads_waits_for_no_writer(released: str, ask: Callable[[Store, str], object]) -> None:
    """The server answers from its event loop: there a wait for a verb's write would be everybody's."""
    store = Store(released)
    other = sqlite3.connect(f"{released}/{FILE}", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert ask(store, released)
    assert time.monotonic() - began < BUSY_TIMEOUT / 2
    other.execute("ROLLBACK")
    other.close()
    store.close()


def test_what_the_server_writes_after_a_verb_ended_is_kept(released: str) -> None:
    server = Store(released)
    assert server.nodes()
    verb = Store(released)
    verb.nodes()
    verb.close()
    server.add_node("n3", "b-3")
    assert [node["id"] for node in Store(released).nodes()] == ["n1", "n2", "n3"]
    server.close()
