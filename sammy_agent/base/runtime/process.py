# SPDX-License-Identifier: Apache-2.0
"""The agent's one way to run a program: in a session of its own, with a deadline and a bound on its output.

`subprocess.run(timeout=…)` kills the program it started and then waits without a bound for whoever else holds the pipe:
a grandchild that went to the background would block a worker for ever. Here the whole session is stopped, SIGTERM
first and SIGKILL after a grace period, and what the program left running is killed when it has ended by itself, too.
Nothing raises for what a program does; `Completed.failure` says why it did not succeed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType

STDOUT, STDERR = 1, 2
# Where a program's output is parsed, it must not depend on the language of whoever started us.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024  # of standard error the end is kept, which says why
MAX_FAILURE_CHARACTERS = 2000
TERM_GRACE = 3.0  # seconds between SIGTERM and SIGKILL
KILL_TIMEOUT = 5.0  # seconds; a program in uninterruptible sleep outlives SIGKILL
DRAIN_SECONDS = 0.5  # for output that is still in the pipe when the program has ended
_CHUNK = 64 * 1024
_FIRST_POLL, _POLL = 0.001, 0.1  # seconds; how late the exit of a program is noticed whose pipe a grandchild holds


class Completed(NamedTuple):
    """What became of a program; `status` is negative for a signal, None when it did not start."""

    argv: tuple[str, ...]
    status: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    problem: str = ""  # why it did not run to its end: not started, deadline, too much output, stopped

    @property
    def ok(self) -> bool:
        """Tell whether it ran to its end with exit status 0."""
        return self.status == 0 and not self.problem

    @property
    def text(self) -> str:
        """Return its standard output, decoded."""
        return self.stdout.decode("utf-8", errors="replace")

    @property
    def failure(self) -> str:
        """Return why it failed, to stand behind its name; empty when it did not.

        The last line of its standard error, or else of its output, is a better reason than an exit status.
        """
        if self.ok:
            return ""
        if self.problem or self.status is None or self.status < 0:
            return self.problem or exit_reason(self.status or 0)
        lines = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", errors="replace").splitlines()
        return lines[-1][:MAX_FAILURE_CHARACTERS] if lines else exit_reason(self.status)


def exit_reason(status: int) -> str:
    """Return an exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-status}"


class Program:
    """A running program, whose session ends with the block.

    `stop` may be called from any thread; everything else from the one that reads.

    :param deadline: seconds from now; None for one that is followed until `stop`.
    :param streams: those that are read; the others go to /dev/null.
    :param merge: write standard error into standard output.
    :param input: its standard input.
    :param environment: its whole environment; None is ours.
    :param nice: its scheduling priority, 0 to 19; its children inherit it.
    """

    _starting: ClassVar[set[int]] = set()

    def __init__(
        self,
        argv: Sequence[str],
        deadline: float | None,
        *,
        streams: Sequence[int] = (STDOUT, STDERR),
        merge: bool = False,
        input: bytes = b"",
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        nice: int = 0,
    ) -> None:
        import subprocess  # late: an agent that has nothing to run does not load it

        self.argv = tuple(argv)
        self.problem = ""
        self.pipes: dict[int, int] = {}  # our end, and which of the streams it is
        self._status: int | None = None
        self._deadline = deadline
        self._until = None if deadline is None else time.monotonic() + deadline
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        Program._starting.add(id(self))
        try:
            with _memory_file(input) if input else contextlib.nullcontext(subprocess.DEVNULL) as stdin:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=stdin,
                    stdout=subprocess.PIPE if STDOUT in streams else subprocess.DEVNULL,
                    stderr=subprocess.STDOUT if merge else subprocess.PIPE if STDERR in streams else subprocess.DEVNULL,
                    env=environment,
                    cwd=directory,
                    start_new_session=True,
                )
        except OSError as error:
            self.problem = str(error.strerror)
        except ValueError as error:  # a zero byte in an argument
            self.problem = str(error)
        else:
            if nice:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)
            for number, file in ((STDOUT, self._process.stdout), (STDERR, self._process.stderr)):
                if file is not None:
                    os.set_blocking(file.fileno(), False)
                    self.pipes[file.fileno()] = number
        finally:
            Program._starting.discard(id(self))

    def __repr__(self) -> str:
        return f"<Program {self.argv[0]} {self.pid or self.problem}>"

    @property
    def pid(self) -> int | None:
        """Return its process id, which is its session's too; None when it did not start."""
        return self._process.pid if self._process is not None else None

    @property
    def status(self) -> int | None:
        """Return its exit status; None before the block's end."""
        return self._status

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (stream, bytes) until it ends, its deadline is over, or `stop` was called."""
        if self._process is None:
            return
        with selectors.DefaultSelector() as selector:
            for pipe, number in self.pipes.items():
                selector.register(pipe, selectors.EVENT_READ, number)
            poll, until, exited = _FIRST_POLL, self._until, False
            while until is None or time.monotonic() < until:
                if exited and not selector.get_map():
                    return
                ready = selector.select(poll if until is None else max(0.0, min(poll, until - time.monotonic())))
                for key, _ in ready:
                    if data := os.read(key.fd, _CHUNK):
                        yield key.data, data
                    else:
                        selector.unregister(key.fd)
                        poll = _FIRST_POLL  # it has closed its output: its end is near, or else not soon
                poll = min(2 * poll, _POLL)
                if not exited:
                    exited = self._has_exited()
                    until = time.monotonic() + DRAIN_SECONDS if exited else self._until
            if not exited:
                self.problem = self.problem or f"was not done within {round(self._deadline or 0.0, 1):g} s"

    def wait(self, max_output: int = MAX_OUTPUT_BYTES) -> Completed:
        """Run it to its end; one that prints more than `max_output` bytes is stopped."""
        out, err = bytearray(), bytearray()
        with self:
            for stream, data in self.chunks():
                if stream == STDERR:
                    err += data
                    del err[:-MAX_ERROR_BYTES]
                    continue
                out += data
                if len(out) > max_output:
                    self.problem = f"printed more than {max_output} bytes"
                    break
        return Completed(self.argv, self.status, bytes(out[:max_output]), bytes(err), self.problem)

    def stop(self) -> None:
        """Ask it to end; whoever reads it kills it when it does not. From any thread, at any time."""
        self.problem = self.problem or "was stopped"
        self._signal(signal.SIGTERM)
        self._until = min(self._until or float("inf"), time.monotonic() + TERM_GRACE)

    def close(self) -> None:
        """Have nothing of it run any more, and leave neither a zombie nor a descriptor."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if not self._has_exited():
            self._signal(signal.SIGTERM)
            self._await_exit(TERM_GRACE)
        self._signal(signal.SIGKILL)  # also what it left running
        self._await_exit(KILL_TIMEOUT)
        with self._lock:
            if self._has_exited():
                self._status = process.wait()
            else:
                self.problem, self._status = "cannot be killed", -signal.SIGKILL
        for file in (process.stdout, process.stderr):
            if file is not None:
                file.close()
        self.pipes.clear()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the session. Until its leader is reaped nobody else can get its number, so ours alone is met."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process is not None and self._process.returncode is None:
                os.killpg(self._process.pid, number)

    def _has_exited(self) -> bool:
        """Tell whether it ended, without reaping it."""
        assert self._process is not None
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped by somebody else: Popen takes it for status 0 or asks in vain
            return True

    def _await_exit(self, seconds: float) -> None:
        until, pause = time.monotonic() + seconds, 0.001
        while not self._has_exited() and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def _memory_file(data: bytes) -> BinaryIO:
    """Return a file in memory that reads as `data`: no program can block us by not reading its input."""
    file = open(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b")  # noqa: SIM115  (the caller closes it)
    file.write(data)
    file.seek(0)
    return file


def exit_on_signals() -> None:
    """Have SIGTERM and SIGHUP end us by SystemExit: programs have sessions of their own, and would live on."""

    def leave(number: int, _: object) -> None:
        if Program._starting:  # nobody knows it yet who could end it
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        else:
            raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


class Run(Protocol):
    """How a component runs programs: `run`, or `fake_process.FakePrograms`."""

    def __call__(
        self,
        argv: Sequence[str],
        deadline: float,
        *,
        input: bytes = b"",
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
    ) -> Completed:
        """Run a program to its end."""


def run(
    argv: Sequence[str],
    deadline: float,
    *,
    input: bytes = b"",
    environment: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> Completed:
    """Run a program to its end, `deadline` seconds at most."""
    return Program(argv, deadline, input=input, environment=environment, directory=directory).wait()
