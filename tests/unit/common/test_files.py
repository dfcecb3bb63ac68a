# SPDX-License-Identifier: Apache-2.0
"""Files as the boot steps and the firewall write them: whole or not at all, with their modes, on a disk with faults."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, set_uid

from cc_sammy.common import files
from tests.unit.fake_files import contents, disk_full, lay_out, read_only

PATH = "/var/lib/sammy/note"


def mode(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def test_a_file_is_made_with_its_directories_and_written_only_when_it_changes(fs: FakeFilesystem) -> None:
    assert files.read_text(PATH) is None
    assert files.write_text(PATH, "one", mode=0o600) is True
    before = os.stat(PATH).st_ino
    assert files.write_text(PATH, "one", mode=0o600) is False
    assert os.stat(PATH).st_ino == before
    assert files.write_text(PATH, "one", mode=0o644) is True
    assert (files.read_text(PATH), mode(PATH)) == ("one", 0o644)
    assert (files.remove(PATH), files.remove(PATH)) == (True, False)


def test_a_file_below_a_file_is_missing_and_one_that_is_no_utf8_is_read(fs: FakeFilesystem) -> None:
    fs.create_file(PATH, contents=b"\xff\n")
    assert (files.read_text(f"{PATH}/x"), files.read_text(PATH)) == (None, "\ufffd\n")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_mode_holds_whatever_the_umask(fs: FakeFilesystem, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write_text(PATH, "secret", mode=0o600)
        files.write_text(f"{PATH}.public", "text")
    finally:
        os.umask(before)
    assert (mode(PATH), mode(f"{PATH}.public")) == (0o600, 0o644)


def test_on_a_real_disk_the_mode_holds_from_the_first_byte_and_nothing_is_left_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[int] = []
    chmod = os.chmod

    def noting(descriptor: int, mode: int) -> None:
        created.append(os.fstat(descriptor).st_mode & 0o777)
        chmod(descriptor, mode)

    monkeypatch.setattr(os, "chmod", noting)
    before = os.umask(0)
    try:
        files.replace(f"{tmp_path}/secret", b"x", mode=0o600, sync=True)
    finally:
        os.umask(before)
    assert created == [0o600]
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("secret", 0o600)]


def test_a_link_that_somebody_put_at_the_temporary_name_is_not_followed(
    fs: FakeFilesystem,
) -> None:
    lay_out(fs, {"/etc/shadow": "theirs", f"{PATH}.x": ""})
    fs.create_symlink(f"{PATH}.{os.getpid()}.{threading.get_ident()}.new", "/etc/shadow")
    files.write_text(PATH, "ours")
    assert (files.read_text("/etc/shadow"), files.read_text(PATH), os.path.islink(PATH)) == ("theirs", "ours", False)


@pytest.fixture
def kept(fs: FakeFilesystem) -> Iterator[FakeFilesystem]:
    """A disk of 1,000 bytes with the file on it; the old content must be what stays."""
    fs.set_disk_usage(1000)
    lay_out(fs, {PATH: "old"})
    yield fs
    assert contents(fs, "/var") == {PATH: "old"}, "the old file, and nothing else"


def test_a_full_disk_leaves_the_old_file(kept: FakeFilesystem) -> None:
    with disk_full(kept), pytest.raises(OSError) as failure:
        files.write_text(PATH, "new and longer", sync=True)
    assert failure.value.errno == errno.ENOSPC


def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_file(kept: FakeFilesystem) -> None:
    with pytest.raises(OSError) as failure:
        files.write_text(PATH, "x" * 2000)
    assert failure.value.errno == errno.ENOSPC


def test_a_read_only_file_system_leaves_the_old_file(kept: FakeFilesystem) -> None:
    with read_only("/var"), pytest.raises(OSError) as failure:
        files.write_text(PATH, "new")
    assert failure.value.errno == errno.EROFS
    with read_only("/var"), pytest.raises(OSError):
        files.remove(PATH)


def test_a_folder_that_may_not_be_written_leaves_the_old_file(kept: FakeFilesystem) -> None:
    kept.chmod("/var/lib/sammy", 0o555)
    set_uid(1000)
    try:
        with pytest.raises(PermissionError):
            files.write_text(PATH, "new")
    finally:
        set_uid(os.getuid())
        kept.chmod("/var/lib/sammy", 0o755)
