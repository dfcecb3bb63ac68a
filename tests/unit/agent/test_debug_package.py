# SPDX-License-Identifier: Apache-2.0
"""The debug package made from real files and real programs: whole, bounded, without a secret, and true about itself."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
from pathlib import Path
from urllib.parse import quote

import pytest

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.debug_package import archive, builder
from sammy_agent.diagnostics.debug_package.members import MEMBERS, Command, FileGlob, Member
from sammy_agent.diagnostics.redaction import redactor, secret_matcher
from tests.agent.lab import wait_for

TOKEN = "a-Token/of+this=node~with:odd.signs-0123456789"
KEY = ["-----BEGIN PRIVATE KEY-----", *(hashlib.sha512(bytes([n])).hexdigest()[:64] for n in range(9)), ""]
KEY[-1] = "-----END PRIVATE KEY-----"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A node that knows a token and a TLS key."""
    found = Paths(str(tmp_path / "root"))
    for path, text in ((found.token, TOKEN), (found.tls_key, "\n".join(KEY))):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text + "\n")
    return found


def put(paths: Paths, path: str, text: str) -> None:
    target = Path(paths.under_root(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def opened(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in names.items() if file is not None}


def shell(name: str, script: str, limit: int = 100_000) -> Command:
    return Command(name, ("sh", "-c", script), limit)


def everywhere(secret: str) -> str:
    """Return the secret in each writing, on lines of a log."""
    encoded = base64.b64encode(f"x{secret}y".encode()).decode()
    writings = [secret, quote(secret, safe=""), json.dumps({"x": secret}), encoded, f"https://h/?q={quote(secret)}"]
    return "".join(f"Nov 24 10:46:49 node-7 tool[7]: {writing} seen\n" for writing in writings)


def test_it_holds_no_secret_of_the_node_in_any_writing(paths: Paths, tmp_path: Path) -> None:
    log = everywhere(TOKEN) + "".join(everywhere(line) for line in KEY[1:-1]) + "an innocent line\n"
    put(paths, "/var/log/tool.log", log)
    put(paths, "/secret", log)
    members: list[Member] = [
        FileGlob("logs", "/var/log/*.log"),
        shell("said.txt", f"cat {paths.under_root('/secret')}"),
    ]
    made = builder.build(str(tmp_path / "p.tar.gz"), paths, members=members)
    held = opened(tmp_path / "p.tar.gz")
    assert sorted(held) == ["README.txt", "SHA256SUMS", "logs/tool.log", "manifest.json", "results.json", "said.txt"]
    for text in (held["logs/tool.log"], held["said.txt"]):
        assert text.count(redactor.REDACTED) >= 5 * 8
        assert text.endswith("an innocent line\n")
        assert not any(form in text for secret in (TOKEN, *KEY[1:-1]) for form in secret_matcher.encodings(secret))
    assert os.stat(made.path).st_mode & 0o777 == 0o600


def test_a_known_secret_that_got_past_is_found_and_nothing_is_given_out(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 16 * archive.CHUNK
    put(paths, "/var/log/tool.log", "x" * (window - 1024 - 20) + TOKEN + "\n")  # about the end of a window
    monkeypatch.setattr(redactor.RedactionStream, "_line", lambda self, line: line)
    monkeypatch.setattr(secret_matcher.KnownSecrets, "redact", lambda self, text: text)
    members: list[Member] = [FileGlob("logs", "/var/log/*.log", 4 * window)]
    with pytest.raises(builder.LeakFound):
        builder.build(str(tmp_path / "p.tar.gz"), paths, members=members)
    assert not list(tmp_path.glob("*.gz*"))


def test_sums_and_results_are_true(paths: Paths, tmp_path: Path) -> None:
    members: list[Member] = [
        shell("fine.txt", "echo fine"),
        shell("failed.txt", "echo half; exit 3"),
        Command("absent.txt", ("no-such-program",)),
        FileGlob("logs", "/var/log/none.log"),
        shell("long.txt", "seq 100000", 1000),
    ]
    builder.build(str(tmp_path / "p.tar.gz"), paths, members=members)
    held = opened(tmp_path / "p.tar.gz")
    told = {entry["name"]: entry["note"] for entry in json.loads(held["results.json"])["members"]}
    assert told["fine.txt"] == "" and held["fine.txt"] == "fine\n"
    assert "exited with status 3: half" in told["failed.txt"] and held["failed.txt"] == "half\n"
    assert told["absent.txt"] == "no-such-program: No such file or directory" and "absent.txt" not in held
    assert told["logs/none.log"] == "there is no /var/log/none.log"
    assert "are left out" in told["long.txt"]
    assert held["long.txt"].endswith("99999\n100000\n") and len(held["long.txt"]) <= 1000
    assert held["long.txt"].splitlines()[0].isdigit()
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "p.tar.gz", "-C", tmp_path / "out"], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out/sammy-debug", check=True)


def test_a_program_that_hangs_and_a_budget_that_ends_leave_a_package_that_says_so(paths: Paths, tmp_path: Path) -> None:
    members: list[Member] = [
        shell("first.txt", "echo first; sleep 600 & wait"),
        shell("late.txt", "echo late"),
    ]
    began = time.monotonic()
    made = builder.build(str(tmp_path / "p.tar.gz"), paths, members=members, seconds=1.0)
    assert time.monotonic() - began < 60
    assert opened(tmp_path / "p.tar.gz")["first.txt"] == "first\n"
    notes = {result.name: result.note for result in made.results}
    assert "sh: was not done within" in notes["first.txt"]
    assert notes["late.txt"] == "no time was left for it"
    small = builder.build(
        str(tmp_path / "q.tar.gz"), paths, members=[shell("a", "seq 9999"), shell("b", "echo b")], most=2000
    )
    assert {result.name: result.note for result in small.results}["a"] == "no room was left for it"
    assert opened(tmp_path / "q.tar.gz")["b"] == "b\n"


def test_files_that_grow_shrink_and_vanish_while_they_are_read(paths: Paths, tmp_path: Path) -> None:
    grows, vanishes = Path(paths.under_root("/var/log/grows.log")), Path(paths.under_root("/var/log/vanishes.log"))
    put(paths, "/var/log/grows.log", "begun\n")
    over = threading.Event()

    def meddle() -> None:
        while not over.is_set():
            with grows.open("a") as file:
                file.write("another line\n" * 1000)
            if grows.stat().st_size > 3_000_000:
                grows.write_text("")
            vanishes.write_text("here\n" * 1000)
            vanishes.unlink()

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        for number in range(20):
            path = tmp_path / f"{number}.tar.gz"
            builder.build(str(path), paths, members=[FileGlob("logs", "/var/log/*.log", 50_000)])
            assert "results.json" in opened(path)
    finally:
        over.set()
        thread.join()


def test_memory_does_not_grow_with_the_source(paths: Paths, tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        tracemalloc.start()
        try:
            builder.build(str(tmp_path / "p.tar.gz"), paths, members=[shell("big", f"seq {lines}", 500_000)])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(5_000_000) < 1.5 * peak(200_000)


def test_the_table_names_each_file_once_and_programs_not_shells() -> None:
    names = [member.name for member in MEMBERS if isinstance(member, Command)]
    assert len(names) == len(set(names))
    assert names[0] == "provisioning-timings.txt"


def test_the_verb_makes_one_on_this_machine(paths: Paths, tmp_path: Path) -> None:
    words = ["debug-package", "--json", "--output", str(tmp_path / "p.tar.gz"), "--root", paths.root]
    top = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "sammy_agent", *words], cwd=top, capture_output=True, text=True, check=True, timeout=120
    )
    told = json.loads(done.stdout)
    assert told["path"] == str(tmp_path / "p.tar.gz")
    held = opened(tmp_path / "p.tar.gz")
    assert "processes.txt" in held and "python3" in held["processes.txt"]


def test_a_signal_ends_it_with_the_program_that_runs_and_leaves_no_file(paths: Paths, tmp_path: Path) -> None:
    seconds = f"6200.{os.getpid()}"
    code = (
        "import sys; from sammy_agent.cli.main import main\n"
        "from sammy_agent.diagnostics.debug_package import builder, members\n"
        f"builder.build.__kwdefaults__['members'] = [members.Command('x', ('sleep', {seconds!r}))]\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    (out := tmp_path / "out").mkdir()
    argv = [sys.executable, "-c", code, "debug-package", "--output", str(out / "p.tar.gz"), "--root", paths.root]
    with subprocess.Popen(argv, cwd=Path(__file__).resolve().parents[3], stderr=subprocess.PIPE) as maker:
        wait_for(lambda: running("sleep", seconds), "the program to run")
        maker.terminate()
        assert maker.wait(30) == 128 + signal.SIGTERM
        assert maker.stderr is not None and maker.stderr.read() == b""
    assert not running("sleep", seconds) and not list(out.iterdir())


def running(*argv: str) -> bool:
    wanted = "\0".join([*argv, ""]).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == wanted:
                return True
    return False
