# SPDX-License-Identifier: Apache-2.0
"""Real programs that hang, flood, die, ignore SIGTERM and leave children behind: nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sammy_agent.base.runtime import process, process_async
from sammy_agent.base.runtime.fake_process import FakePrograms
from sammy_agent.base.runtime.process import STDERR, STDOUT, Completed, Program, run

SLEEPER = f"7321.{os.getpid()}"  # seconds; so that /proc shows which sleeps are ours


def sh(script: str, deadline: float = 30.0) -> Completed:
    return run(["sh", "-c", script], deadline)


def sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if SLEEPER.encode() in entry.read_bytes().split(b"\0"):
                found.append(entry.parent.name)
    return found


def children() -> set[str]:
    """Return our child processes, dead ones that were not reaped among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(stat.parent.name)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test: no descriptor more, no zombie, no program that still runs."""
    gc.collect()  # what tests before this one left open is closed now, not in its midst
    before, ours = len(os.listdir("/proc/self/fd")), children()
    yield
    wait_until(lambda: not sleepers())
    assert len(os.listdir("/proc/self/fd")) <= before
    assert children() <= ours


def test_output_status_and_input_of_a_program_that_ends() -> None:
    done = run(["sh", "-c", "cat; echo $HOME; pwd; echo bad >&2"], 30.0, input=b"given\n",
               environment={"HOME": "/h", "PATH": os.environ["PATH"]}, directory="/")  # fmt: skip
    assert done == Completed(("sh", "-c", "cat; echo $HOME; pwd; echo bad >&2"), 0, b"given\n/h\n/\n", b"bad\n", "")
    assert done.ok and done.failure == "" and done.text.startswith("given")


def test_a_program_that_ends_is_noticed_at_once() -> None:
    began = time.monotonic()
    for _ in range(20):
        assert sh("exec true").ok
    assert time.monotonic() - began < 20 * 0.09, "each waited for a poll"


def test_much_input_is_no_deadlock_even_when_nobody_reads_it() -> None:
    assert run(["true"], 30.0, input=b"x" * 1_000_000).ok
    assert run(["wc", "-c"], 30.0, input=b"x" * 1_000_000).text.strip() == "1000000"


@pytest.mark.parametrize(
    ("script", "status", "failure"),
    [
        ("echo first >&2; echo last words >&2; exit 3", 3, "last words"),
        ("echo out; exit 3", 3, "out"),
        ("exit 7", 7, "exited with status 7"),
        ("echo x >&2; kill -9 $$", -9, "was killed by SIGKILL"),
        ("kill -40 $$", -40, "was killed by signal 40"),
    ],
)
def test_why_a_program_failed(script: str, status: int, failure: str) -> None:
    done = sh(script)
    assert (done.status, done.failure, done.ok, done.problem) == (status, failure, False, "")


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert run(["no-such-program"], 5.0)[1:] == (None, b"", b"", "No such file or directory")
    assert run([str(plain)], 5.0).failure == "Permission denied"
    plain.chmod(0o755)
    assert run([str(plain)], 5.0).failure == "Exec format error"
    assert run(["true"], 5.0, directory=str(tmp_path / "nowhere")).failure == "No such file or directory"
    assert "null byte" in run(["true", "a\0b"], 5.0).failure


def test_a_program_that_hangs_is_ended_with_all_that_it_started() -> None:
    began = time.monotonic()
    done = sh(f"echo so far; sleep {SLEEPER} & sleep {SLEEPER}", 0.3)
    assert (done.status, done.stdout, done.failure) == (-signal.SIGTERM, b"so far\n", "was not done within 0.3 s")
    assert time.monotonic() - began < 2.0


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)
    done = sh(f"trap '' TERM; sleep {SLEEPER}; sleep {SLEEPER}", 0.3)
    assert (done.status, done.problem) == (-signal.SIGKILL, "was not done within 0.3 s")


def test_sigterm_lets_a_program_tidy_up(tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    sh(f"trap 'echo yes > {tidied}; exit' TERM; sleep {SLEEPER} & wait", 0.3)
    assert tidied.read_text() == "yes\n"


@pytest.mark.parametrize("redirect", ["", ">/dev/null 2>&1"])
def test_a_grandchild_that_keeps_the_pipe_open_holds_nobody_up(redirect: str) -> None:
    began = time.monotonic()
    done = sh(f"sleep {SLEEPER} {redirect} & echo done")
    assert (done.status, done.stdout, done.problem) == (0, b"done\n", "")
    assert time.monotonic() - began < 3.0


def test_a_grandchild_that_floods_the_pipe_holds_nobody_up() -> None:
    began = time.monotonic()
    with Program(["sh", "-c", f"yes {SLEEPER} & exit 0"], 30.0) as program:
        for _ in program.chunks():
            pass
    assert program.status == 0 and time.monotonic() - began < 5.0


def test_a_flood_is_bounded_and_ends_the_program() -> None:
    done = Program(["yes"], 30.0).wait(max_output=100_000)
    assert (len(done.stdout), done.ok, done.failure) == (100_000, False, "printed more than 100000 bytes")


def test_of_a_flood_of_errors_the_end_is_kept() -> None:
    done = sh("seq 100000 >&2; echo the reason >&2; exit 1")
    assert len(done.stderr) == process.MAX_ERROR_BYTES and done.failure == "the reason"


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    done = sh("exec >&- 2>&-; sleep 0.3; exit 5")
    assert (done.status, done.problem) == (5, "")
    assert sh(f"exec >&- 2>&-; sleep {SLEEPER}", 0.3).problem == "was not done within 0.3 s"


def test_what_is_not_wanted_is_not_read_and_merged_output_keeps_its_order() -> None:
    script = ["sh", "-c", "echo a; echo b >&2; echo c"]
    with Program(script, 30.0, streams=(STDERR,)) as program:
        assert list(program.chunks()) == [(STDERR, b"b\n")]
    with Program(script, 30.0, streams=(STDOUT,), merge=True) as program:
        assert b"".join(data for _, data in program.chunks()) == b"a\nb\nc\n"
    with Program(["true"], 30.0, streams=()) as program:
        assert list(program.chunks()) == []
    assert program.status == 0
    assert Program(["sh", "-c", "sleep 0.2; nice"], 30.0, nice=7).wait().text == "7\n"


def test_whoever_read_enough_leaves_the_block() -> None:
    with Program(["sh", "-c", f"seq 100000; sleep {SLEEPER}"], 30.0) as program:
        next(program.chunks())
    assert (program.status, program.problem) == (-signal.SIGTERM, "")


def test_stop_from_another_thread_ends_it_at_once_and_again_does_nothing() -> None:
    program = Program(["sleep", SLEEPER], 60.0)
    began = time.monotonic()
    threading.Timer(0.2, program.stop).start()
    done = program.wait()
    assert (done.status, done.failure) == (-signal.SIGTERM, "was stopped") and time.monotonic() - began < 2.0
    program.stop()
    program.close()
    nobody = Program(["no-such-program"], 1.0)
    nobody.stop()
    assert nobody.wait().failure == "No such file or directory"


def test_stop_kills_what_does_not_end_and_a_followed_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)
    program = Program(["sh", "-c", f"trap '' TERM; echo up; sleep {SLEEPER}"], None)
    with program:
        for _, data in program.chunks():
            assert data == b"up\n"
            program.stop()
    assert (program.status, program.problem) == (-signal.SIGKILL, "was stopped")


def test_an_exception_in_the_block_ends_it() -> None:
    with pytest.raises(RuntimeError), Program(["sleep", SLEEPER], 60.0) as program:
        raise RuntimeError
    assert program.status == -signal.SIGTERM


def test_many_at_once_from_many_threads_do_not_hold_each_others_pipes() -> None:
    found: list[bytes] = []

    def one(number: int) -> None:
        found.append(sh(f"echo {number}").stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(int, found)) == list(range(30))


def test_the_module_loads_no_subprocess_until_something_runs() -> None:
    statement = "import sys, sammy_agent.base.runtime.process; print('subprocess' in sys.modules)"
    assert run([sys.executable, "-c", statement], 30.0).text == "False\n"


def test_the_loop_goes_on_while_a_program_runs() -> None:
    async def body() -> None:
        running = asyncio.ensure_future(process_async.run(["sh", "-c", "sleep 0.3; echo done"], 30.0))
        turns = 0
        while not running.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert running.result().text == "done\n" and turns > 10
        assert (await process_async.run(["no-such-program"], 1.0)).status is None
        assert (await process_async.run(["sleep", SLEEPER], 0.2)).failure == "was not done within 0.2 s"

    asyncio.run(body())


def test_a_cancelled_task_returns_when_the_program_is_gone() -> None:
    async def body() -> None:
        running = asyncio.ensure_future(process_async.run(["sh", "-c", f"sleep {SLEEPER} & wait"], 60.0))
        while not sleepers():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not sleepers()

    asyncio.run(body())


def test_the_fake_answers_by_the_longest_beginning_and_knows_what_was_run() -> None:
    fake = FakePrograms()
    fake.answer("docker", stdout="any\n")
    fake.answer("docker", "version", stderr="no daemon\n", status=1)
    fake.act("cat", do=lambda argv, input: Completed(argv, 0, input))
    runs: process.Run = fake
    assert runs(["docker", "ps"], 5.0).text == "any\n"
    assert runs(["docker", "version", "-f"], 5.0).failure == "no daemon"
    assert runs(["cat"], 5.0, input=b"x").stdout == b"x"
    assert runs(["else"], 5.0).failure == "No such file or directory"
    assert fake.calls == [("docker", "ps"), ("docker", "version", "-f"), ("cat",), ("else",)]
