# SPDX-License-Identifier: Apache-2.0
"""The swap file on a disk in memory, and once for real; systemd and the kernel's list of swap are played."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.errors import CommandFailed, StepFailed
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult, Host
from cc_sammy.steps import declared, swap
from tests.unit.fake_files import calls_of_the_kernel, contents, lay_out, new_disk, read_only

OFF, SMALL, LARGE = (config.load({"swap": {"size_mb": size}}) for size in (0, 8, 16))


class Machine(FakeHost):
    """Acts on `systemctl` as systemd would; `stuck`: there is no memory for what lies in the swap."""

    stuck = False

    def __init__(self, disk: FakeFilesystem) -> None:
        super().__init__()
        self.disk = disk

    def run(self, argv: Sequence[str], **more: Any) -> CommandResult:
        verb = argv[1] if argv[0] == "systemctl" else argv[0]
        if verb == "mkswap":
            assert (mode(argv[1]), os.stat(argv[1]).st_uid) == (0o600, os.getuid())
        if verb == "start":
            lay_out(self.disk, {"/proc/swaps": f"Filename\tType\tSize\n{swap.FILE}     file\t\t1\t0\t-2\n"})
        elif verb == "stop" and not self.stuck:
            lay_out(self.disk, {"/proc/swaps": "Filename\tType\tSize\n"})
        elif verb == "enable" and not os.path.lexists(swap.WANTED_BY):
            self.disk.create_symlink(swap.WANTED_BY, swap.UNIT)
        elif verb == "disable":
            os.unlink(swap.WANTED_BY)
        elif verb == "show":
            return CommandResult(tuple(argv), 0, "ActiveState=active\n")
        return super().run(argv, **more)


def mode(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


@pytest.fixture
def disk(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> FakeFilesystem:
    """A disk of 64 MiB, of which the other steps need one."""
    new_disk(fs, 64 << 20)
    calls_of_the_kernel(fs, monkeypatch)
    monkeypatch.setattr(swap, "RESERVED_MB", 1)
    return fs


def test_the_step_is_part_of_a_run_only_where_it_is_asked_for_or_has_something_to_take_away(
    disk: FakeFilesystem,
) -> None:
    assert [swap.is_applicable(wanted) for wanted in (OFF, SMALL)] == [False, True]
    assert "swap" not in [step.name for step in declared()]
    assert [step.name for step in declared(swap_is_applicable=True)][-1] == "swap"
    lay_out(disk, {swap.UNIT: swap.unit()})
    assert swap.is_applicable(OFF)


def test_a_file_is_made_used_grown_and_taken_away_and_each_is_done_once(disk: FakeFilesystem) -> None:
    host = Machine(disk)
    for wanted, size in ((SMALL, 8), (LARGE, 16)):
        assert swap.already_done(host, wanted) is None
        swap.run(host, wanted)
        assert (os.stat(swap.FILE).st_size, mode(swap.FILE), mode(swap.UNIT)) == (size << 20, 0o600, 0o644)
        before = len(host.calls)
        assert swap.already_done(host, wanted) == f"{size} MB of swap are in use"
        assert len(host.calls) == before, "a later boot asks no process"
    assert swap.already_done(host, OFF) is None
    swap.run(host, OFF)
    assert swap.already_done(host, OFF) == "swap.size_mb is 0"
    assert not [path for path in (swap.FILE, swap.UNIT, swap.WANTED_BY) if os.path.lexists(path)]


def test_the_file_has_no_holes_and_is_swap_to_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "swapfile"
    monkeypatch.setattr(swap, "FILE", str(place))
    monkeypatch.setattr(swap, "RESERVED_MB", 1)
    swap.make_file(Host(), 8)
    assert place.stat().st_blocks * 512 >= 8 << 20
    assert b"SWAPSPACE2" in place.read_bytes()[: os.sysconf("SC_PAGESIZE")]
    assert [path.name for path in place.parent.iterdir()] == ["swapfile"]


def test_a_file_of_somebody_else_is_left_alone(disk: FakeFilesystem) -> None:
    lay_out(disk, {swap.FILE: "theirs"})
    with pytest.raises(StepFailed, match="not ours"):
        swap.run(Machine(disk), SMALL)
    assert contents(disk)[swap.FILE] == "theirs"


def test_a_link_in_its_place_is_no_swap_file_and_not_followed(disk: FakeFilesystem) -> None:
    lay_out(disk, {"/etc/shadow": "theirs"})
    disk.create_symlink(swap.FILE, "/etc/shadow")
    with pytest.raises(StepFailed, match="not ours"):
        swap.run(Machine(disk), SMALL)
    assert contents(disk)["/etc/shadow"] == "theirs"


def test_a_power_cut_before_the_file_was_used_is_made_good(disk: FakeFilesystem) -> None:
    host = Machine(disk)
    lay_out(disk, {swap.UNIT: swap.unit(), swap.FILE: "half", f"{swap.FILE}.new": "half"})
    swap.run(host, SMALL)
    assert swap.already_done(host, SMALL) is not None


def test_a_disk_without_room_is_named_and_left_as_it_was(disk: FakeFilesystem) -> None:
    disk.set_disk_usage(9 << 20)
    before = contents(disk)
    with pytest.raises(StepFailed, match=r"no room for 16 MB of swap: 8 MB are free, 1 of them are reserved"):
        swap.make_file(Machine(disk), 16)
    assert contents(disk) == before


def test_a_disk_that_fills_up_meanwhile_is_named_and_left_as_it_was(
    disk: FakeFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.set_disk_usage(9 << 20)
    before = contents(disk)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1 << 30, f_frsize=4096))
    with pytest.raises(StepFailed, match="no room for 16 MB of swap: No space left on device"):
        swap.make_file(Machine(disk), 16)
    assert contents(disk) == before


def test_a_read_only_root_is_said_and_nothing_is_started(disk: FakeFilesystem) -> None:
    host = Machine(disk)
    with read_only("/"), pytest.raises(OSError, match="Read-only file system"):
        swap.run(host, SMALL)
    assert host.calls == []


def test_what_fails_half_way_leaves_no_file_behind(disk: FakeFilesystem) -> None:
    host = Machine(disk)
    host.script(["mkswap"], 1, stderr="mkswap: error: no\n")
    with pytest.raises(CommandFailed, match="mkswap: error"):
        swap.run(host, SMALL)
    assert [path for path in contents(disk) if path.startswith(swap.FILE)] == []


def test_swap_that_memory_has_no_room_for_is_not_torn_away(disk: FakeFilesystem) -> None:
    host = Machine(disk)
    swap.run(host, SMALL)
    host.stuck = True
    with pytest.raises(StepFailed, match="still in use"):
        swap.run(host, OFF)
    assert os.path.exists(swap.FILE) and contents(disk)[swap.UNIT] == swap.unit()
