# SPDX-License-Identifier: Apache-2.0
"""Small state over a fake file system that has modes, owners and errors: whatever a disk does is a value."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, reset_ids, set_uid

from sammy_agent.base.errors import Problem
from sammy_agent.base.runtime import state_file
from tests.unit.fake_files import read_only

PATH = "/var/lib/sammy-agent/ready.json"
FOLDER = os.path.dirname(PATH)


class Seen(NamedTuple):
    """A state as a reporter has one."""

    node: str
    times: int

    @classmethod
    def from_document(cls, document: Any) -> Seen:
        return cls(str(document["node"]), int(document["times"]))

    def to_document(self) -> dict[str, Any]:
        return self._asdict()


@pytest.fixture
def not_root() -> Iterator[None]:
    set_uid(1000)
    yield
    reset_ids()


def problem(found: object, code: str) -> Problem:
    assert isinstance(found, Problem), found
    assert found.code == code
    assert PATH in found.text
    assert found.next_step
    return found


def test_comes_back_as_it_was_saved_and_is_its_owners_alone(fs: FakeFilesystem) -> None:
    assert state_file.save(PATH, Seen("n1", 3)) is None
    assert state_file.load(PATH, Seen) == Seen("n1", 3)
    assert stat.S_IMODE(os.stat(PATH).st_mode) == 0o600
    assert os.listdir(FOLDER) == ["ready.json"]


def test_a_file_that_others_could_read_is_theirs_no_longer_once_it_is_saved(fs: FakeFilesystem) -> None:
    fs.create_file(PATH, st_mode=stat.S_IFREG | 0o644, contents="{}")
    assert state_file.save(PATH, Seen("n1", 3)) is None
    assert stat.S_IMODE(os.stat(PATH).st_mode) == 0o600


def test_a_link_is_replaced_and_not_followed(fs: FakeFilesystem) -> None:
    fs.create_file("/etc/shadow", contents="root")
    fs.create_symlink(PATH, "/etc/shadow")
    assert state_file.save(PATH, "word") is None
    assert not os.path.islink(PATH)
    with open("/etc/shadow") as file:
        assert file.read() == "root"


@pytest.mark.parametrize("path", [PATH, "/etc/hostname/ready.json"])
def test_what_was_never_written_is_none(fs: FakeFilesystem, path: str) -> None:
    fs.create_file("/etc/hostname")
    assert state_file.load(path, Seen) is None
    assert state_file.load_text(path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"node": "n1", "cou',
        b"\0" * 512,
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"n1"',
        b'{"node": "n1"}',
        b'{"node": "n1", "times": null}',
        b'{"node": "n1", "times": "many"}',
        b"[" * 100_000,
        b'{"node": "n1", "times": 1}' + b" " * state_file.MAX_STATE_BYTES,
    ],
    ids=lambda content: f"{len(content)}-{content[:12]!r}",
)
def test_what_is_damaged_is_a_problem(fs: FakeFilesystem, content: bytes) -> None:
    fs.create_file(PATH, contents=content)
    problem(state_file.load(PATH, Seen), "state-damaged")


def test_a_word_is_read_without_its_blanks_and_no_other_bytes_pass_for_one(fs: FakeFilesystem) -> None:
    assert state_file.save(PATH, "iid-1") is None
    assert state_file.load_text(PATH) == "iid-1"
    with open(PATH, "wb") as file:
        file.write(b"\xff\xfe")
    problem(state_file.load_text(PATH), "state-damaged")


def test_a_folder_in_its_place_is_a_problem_to_both(fs: FakeFilesystem) -> None:
    fs.create_dir(PATH)
    problem(state_file.load(PATH, Seen), "state-unreadable")
    problem(state_file.save(PATH, Seen("n1", 3)), "state-unsaved")
    assert os.listdir(FOLDER) == ["ready.json"]


def test_no_permission_is_a_problem_to_both(fs: FakeFilesystem, not_root: None) -> None:
    fs.create_file(PATH, contents="{}", st_mode=stat.S_IFREG | 0o000)
    os.chmod(FOLDER, 0o500)
    assert "permission denied" in problem(state_file.load(PATH, Seen), "state-unreadable").text.lower()
    assert "permission denied" in problem(state_file.save(PATH, Seen("n1", 3)), "state-unsaved").text.lower()


def test_a_full_disk_keeps_the_state_before_and_leaves_nothing(fs: FakeFilesystem) -> None:
    assert state_file.save(PATH, Seen("n1", 3)) is None
    fs.set_disk_usage(os.stat(PATH).st_size + 4)
    assert "No space left" in problem(state_file.save(PATH, Seen("n2", 4)), "state-unsaved").text
    assert state_file.load(PATH, Seen) == Seen("n1", 3)
    assert os.listdir(FOLDER) == ["ready.json"]


@pytest.mark.parametrize(("call", "number"), [("open", errno.EROFS), ("fsync", errno.EIO), ("replace", errno.EIO)])
def test_a_disk_that_is_read_only_or_goes_bad_keeps_the_state_before(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    assert state_file.save(PATH, Seen("n1", 3)) is None

    def fail(*arguments: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        problem(state_file.save(PATH, Seen("n2", 4)), "state-unsaved")
    assert state_file.load(PATH, Seen) == Seen("n1", 3)
    assert os.listdir(FOLDER) == ["ready.json"]


def test_a_disk_that_is_read_only_keeps_the_state_before_and_makes_no_folder(fs: FakeFilesystem) -> None:
    with read_only("/"):
        problem(state_file.save(PATH, Seen("n1", 3)), "state-unsaved")
    assert not os.path.exists(FOLDER)
    assert state_file.save(PATH, Seen("n1", 3)) is None
    with read_only("/"):
        assert "Read-only" in problem(state_file.save(PATH, Seen("n2", 4)), "state-unsaved").text
    assert state_file.load(PATH, Seen) == Seen("n1", 3)
    assert os.listdir(FOLDER) == ["ready.json"]


def test_a_disk_that_cannot_be_read_is_a_problem(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.create_file(PATH, contents=json.dumps(Seen("n1", 3).to_document()))

    def fail(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("builtins.open", fail)
    problem(state_file.load(PATH, Seen), "state-unreadable")
    problem(state_file.load_text(PATH), "state-unreadable")


def test_a_bug_in_the_document_is_not_taken_for_the_disks(fs: FakeFilesystem) -> None:
    class Bad(Seen):
        def to_document(self) -> Any:
            return {"node": object()}

    with pytest.raises(TypeError):
        state_file.save(PATH, Bad("n1", 3))
    assert not os.path.exists(PATH)
