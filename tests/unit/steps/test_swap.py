# SPDX-License-Identifier: Apache-2.0
"""The swap file made for real, on a real disk; systemd and the kernel's list of swap played by a host in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cc_sammy import config
from cc_sammy.errors import CommandFailed, StepFailed
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult, Host
from cc_sammy.steps import declared, swap

OFF, SMALL, LARGE = (config.load({"swap": {"size_mb": size}}) for size in (0, 8, 16))


class Machine(FakeHost):
    """Acts on `systemctl` as systemd would; `stuck`: there is no memory for what lies in the swap."""

    stuck = False

    def run(self, argv: Sequence[str], **more: Any) -> CommandResult:
        verb = argv[1] if argv[0] == "systemctl" else argv[0]
        if verb == "mkswap":
            assert os.stat(argv[1]).st_mode & 0o777 == 0o600
        if verb == "start":
            self.files["/proc/swaps"] = f"Filename\tType\tSize\n{swap.FILE}     file\t\t1\t0\t-2\n"
        elif verb == "stop" and not self.stuck:
            self.files.pop("/proc/swaps", None)
        elif verb == "enable":
            self.files[swap.WANTED_BY] = ""
        elif verb == "disable":
            self.files.pop(swap.WANTED_BY, None)
        elif verb == "show":
            return CommandResult(tuple(argv), 0, "ActiveState=active\n")
        return super().run(argv, **more)

    def remove(self, path: str) -> bool:
        return Host().remove(path) if path.startswith(swap.FILE) else super().remove(path)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(swap, "FILE", f"{tmp_path}/swapfile")
    monkeypatch.setattr(swap, "KEPT_FREE_MB", 1)
    return tmp_path / "swapfile"


def test_the_step_is_part_of_a_run_only_where_it_is_asked_for_or_has_something_to_take_away() -> None:
    host = Machine()
    assert [swap.is_concerned(host, wanted) for wanted in (OFF, SMALL)] == [False, True]
    assert "swap" not in [step.name for step in declared()]
    assert [step.name for step in declared(swap_is_concerned=True)][-1] == "swap"
    host.files[swap.UNIT] = swap.unit()
    assert swap.is_concerned(host, OFF)


def test_a_file_is_made_used_grown_and_taken_away_and_each_is_done_once(place: Path) -> None:
    host = Machine()
    for wanted, size in ((SMALL, 8), (LARGE, 16)):
        assert swap.satisfied(host, wanted) is None
        swap.run(host, wanted)
        assert (place.stat().st_size, place.stat().st_mode & 0o777) == (size << 20, 0o600)
        before = len(host.calls)
        assert swap.satisfied(host, wanted) == f"{size} MB of swap are in use"
        assert len(host.calls) == before, "a later boot asks no process"
    assert swap.satisfied(host, OFF) is None
    swap.run(host, OFF)
    assert swap.satisfied(host, OFF) == "swap.size_mb is 0"
    assert (place.exists(), host.files) == (False, {})


def test_the_file_has_no_holes_and_is_swap_to_the_kernel(place: Path) -> None:
    swap.make_file(Host(), 8)
    assert place.stat().st_blocks * 512 >= 8 << 20
    assert b"SWAPSPACE2" in place.read_bytes()[: os.sysconf("SC_PAGESIZE")]
    assert [path.name for path in place.parent.iterdir()] == ["swapfile"]


def test_a_file_of_somebody_else_is_left_alone(place: Path) -> None:
    place.write_text("theirs")
    with pytest.raises(StepFailed, match="not ours"):
        swap.run(Machine(), SMALL)
    assert place.read_text() == "theirs"


def test_a_power_cut_before_the_file_was_used_is_made_good(place: Path) -> None:
    host = Machine({swap.UNIT: swap.unit()})
    place.write_bytes(b"half")
    swap.run(host, SMALL)
    assert swap.satisfied(host, SMALL) is not None


def test_a_disk_without_room_is_named_and_left_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(f_bavail=9 << 10, f_frsize=1 << 10)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    monkeypatch.setattr(swap, "KEPT_FREE_MB", 2)
    with pytest.raises(StepFailed, match=r"no room for 8 MB of swap: 9 MB are free, 2 of them are kept"):
        swap.make_file(Host(), 8)
    assert list(place.parent.iterdir()) == []


def test_what_fails_half_way_leaves_no_file_behind(place: Path) -> None:
    host = Machine()
    host.script(["mkswap"], 1, stderr="mkswap: error: no\n")
    with pytest.raises(CommandFailed, match="mkswap: error"):
        swap.run(host, SMALL)
    assert list(place.parent.iterdir()) == []


def test_swap_that_memory_has_no_room_for_is_not_torn_away(place: Path) -> None:
    host = Machine()
    swap.run(host, SMALL)
    host.stuck = True
    with pytest.raises(StepFailed, match="still in use"):
        swap.run(host, OFF)
    assert place.exists() and host.files[swap.UNIT] == swap.unit()
