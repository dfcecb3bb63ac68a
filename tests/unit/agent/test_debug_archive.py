# SPDX-License-Identifier: Apache-2.0
"""The debug package's archive: bounded, and readable wherever it is cut."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import shutil
import string
import subprocess
import tarfile
from pathlib import Path

import pytest

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.cli.main import main
from sammy_agent.diagnostics.debug_package import builder
from sammy_agent.diagnostics.debug_package.archive import Archive
from sammy_agent.diagnostics.debug_package.members import Command, Member
from tests.unit.agent.test_debug_package import shell

COUNT = 12


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(str(tmp_path / "root"))


def noise(length: int) -> str:
    """Return what packs badly."""
    chance = random.Random(length)
    return "".join(chance.choice(string.ascii_letters + " ") for _ in range(length)) + "\n"


@pytest.fixture
def members(tmp_path: Path) -> list[Member]:
    """Files of all sizes, some larger than what any program reads at once."""
    made: list[Member] = []
    for number in range(COUNT):
        path = tmp_path / f"source-{number}"
        path.write_text(noise(1 + number * 9001))
        made.append(Command(f"{number:02}.txt", ("cat", str(path)), 1_000_000))
    return made


def unpack(path: Path, into: Path) -> dict[str, str]:
    """Unpack with tar, as whoever is handed a package does; what it complains of is no matter."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", into], check=False, capture_output=True)
    return {found.name: found.read_text(errors="replace") for found in into.glob("sammy-debug/*")}


def test_cut_anywhere_it_gives_what_stands_before(paths: Paths, tmp_path: Path, members: list[Member]) -> None:
    path, cut = tmp_path / "p.tar.gz", tmp_path / "cut.tar.gz"
    sizes: dict[str, int] = {}

    def note(name: str) -> None:
        beside = next(tmp_path.glob("p.tar.gz.*.new"))
        sizes[name] = beside.stat().st_size  # the file of before is whole when the next one begins

    builder.build(str(path), paths, members=members, say=note)
    whole = unpack(path, tmp_path / "out")
    names = [member.name for member in members]
    assert set(whole) == {*names, "README.txt", "results.json", "manifest.json", "SHA256SUMS"}
    assert len(whole["11.txt"]) == 11 * 9001 + 2
    data = path.read_bytes()
    for at in [*range(0, len(data), len(data) // 30), len(data) - 1]:
        cut.write_bytes(data[:at])
        held = unpack(cut, tmp_path / "out")
        must = [name for name, after in itertools.pairwise(names) if sizes[after] <= at]
        assert [name for name in must if held.get(name) != whole[name]] == [], f"cut at {at} of {len(data)}"


def test_python_reads_the_cut_archive_too(paths: Paths, tmp_path: Path, members: list[Member]) -> None:
    path = tmp_path / "p.tar.gz"
    builder.build(str(path), paths, members=members)
    data = path.read_bytes()[: path.stat().st_size * 2 // 3]
    names = []
    with pytest.raises((EOFError, tarfile.ReadError)), tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
        for member in archive:
            names.append(member.name)
    assert len(names) > COUNT // 2
    with gzip.open(path) as plain:
        assert plain.read(100).startswith(b"sammy-debug/README.txt")


def test_the_sums_are_those_of_the_files(paths: Paths, tmp_path: Path, members: list[Member]) -> None:
    builder.build(str(tmp_path / "p.tar.gz"), paths, members=members)
    unpack(tmp_path / "p.tar.gz", tmp_path / "out")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out/sammy-debug", check=True)


@pytest.mark.parametrize("name", ["p.tar.zst", "p.tzst", "p.tar.xz", "p.zip"])
def test_a_name_that_promises_another_compression_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["debug-package", "--output", str(tmp_path / name)]) == 1
    assert "Name it .tar.gz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_it_keeps_to_its_bound_and_says_what_had_no_room(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "noise").write_text("".join(noise(1000) for _ in range(300)))
    members: list[Member] = [
        shell("first.txt", "echo first"),
        Command("noise.txt", ("cat", str(tmp_path / "noise")), 1_000_000),
        shell("last.txt", "echo last"),
    ]
    path = tmp_path / "p.tar.gz"
    made = builder.build(str(path), paths, members=members, most_packed=100_000)
    assert made.bytes == path.stat().st_size < 100_000
    held = unpack(path, tmp_path / "out")
    assert (held["first.txt"], held["last.txt"]) == ("first\n", "last\n")
    told = {result["name"]: result for result in json.loads(held["results.json"])["members"]}
    # a smaller package has of each member a smaller share, here the end of it
    assert (told["noise.txt"]["status"], "left out" in told["noise.txt"]["note"]) == ("partial", True)
    assert held["noise.txt"].endswith(noise(1000)) and len(held["noise.txt"]) < 20_000


def test_a_file_without_room_is_as_if_it_had_never_been_there() -> None:
    file, text = io.BytesIO(), noise(50_000).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Archive, "_is_full", lambda self: file.tell() > 20_000)
        target = Archive(file, 20_000)
        assert target.add("a", io.BytesIO(b"a\n"), 2)
        assert not target.add("b", io.BytesIO(text), len(text))
        assert target.add("c", io.BytesIO(b"c\n"), 2)
        target.close()
    with tarfile.open(fileobj=io.BytesIO(file.getvalue()), mode="r:gz") as archive:
        assert archive.getnames() == ["sammy-debug/a", "sammy-debug/c"]
    assert [name for name, _, _ in target.sums] == ["a", "c"]


def test_a_full_disk_ends_it_with_words_and_leaves_nothing(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="Name another place"):
        builder.build("/proc/no/p.tar.gz", paths, members=[])
