# SPDX-License-Identifier: Apache-2.0
"""Running commands: their output is passed on line by line, and all of them are killed when the run is stopped.

cloud-init's unit is stopped with KillMode=process: apt, tar and the like would continue without a parent and keep
dpkg's lock from the next run.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from cc_sammy.host.usage import MeasuredProcess

CHUNK_BYTES = 64 * 1024
# How long output of a command's own children is read after it has ended: a daemon that a package's script started may
# keep the pipe open for ever.
DRAIN_SECONDS = 2.0
POLL_SECONDS = 0.5


class RunningCommands:
    """The commands of all steps that are running now. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[MeasuredProcess] = set()
        self.stopped = threading.Event()

    def __repr__(self) -> str:
        return f"<RunningCommands {len(self._running)}{', stopped' if self.stopped.is_set() else ''}>"

    @contextlib.contextmanager
    def tracked(self, process: MeasuredProcess, *, cleanup: bool) -> Iterator[None]:
        """Track the command while it runs, so that `stop` kills it; a cleanup that begins later may finish."""
        with self._lock:
            self._running.add(process)
            if self.stopped.is_set() and not cleanup:
                kill(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Kill every command with all its children; those that start from now on are killed at once."""
        with self._lock:
            self.stopped.set()
            for process in self._running:
                kill(process)


def kill(process: MeasuredProcess) -> None:
    """Kill the command's process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class CommandIO:
    """One command's input and output: each line is passed to `on_line` as it comes, and the whole is kept."""

    def __init__(self, process: MeasuredProcess, input: bytes, on_line: Callable[[str], None] | None) -> None:
        self._process, self._input, self._on_line = process, input, on_line
        self._output: dict[IO[bytes], bytearray] = {
            stream: bytearray() for stream in (process.stdout, process.stderr) if stream
        }
        self._passed_on = dict.fromkeys(self._output, 0)  # bytes that went out as lines

    @property
    def output(self) -> tuple[str, str]:
        """What came on standard output and standard error."""
        out, err = (bytes(self._output[stream]).decode(errors="replace") for stream in self._output)
        return out, err

    def run_until(self, deadline: float) -> None:
        """Write its input and read its output until it has ended. TimeoutExpired at `deadline` (monotonic)."""
        drained = float("inf")
        with selectors.DefaultSelector() as selector:
            self._open(selector)
            while selector.get_map() and (now := time.monotonic()) < drained:
                if now >= deadline:
                    raise subprocess.TimeoutExpired(self._process.args, 0.0)
                ready = selector.select(min(deadline - now, POLL_SECONDS))
                for key, _ in ready:
                    self._serve(selector, key.fileobj)  # type: ignore[arg-type]  # they are the pipes' files
                if not ready and self._process.has_ended():
                    drained = min(drained, now + DRAIN_SECONDS)
        self._close()
        self._process.wait(max(0.01, deadline - time.monotonic()))

    def finish(self) -> None:
        """Read the rest of a killed command's output, and reap it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run_until(time.monotonic() + DRAIN_SECONDS)
        self._close()
        self._process.wait()

    def _open(self, selector: selectors.BaseSelector) -> None:
        for stream in self._output:
            if not stream.closed:
                selector.register(stream, selectors.EVENT_READ)
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE)

    def _serve(self, selector: selectors.BaseSelector, stream: IO[bytes]) -> None:
        done = self._write(stream) if stream is self._process.stdin else self._read(stream)
        if done:
            selector.unregister(stream)
            stream.close()

    def _write(self, pipe: IO[bytes]) -> bool:
        try:
            self._input = self._input[os.write(pipe.fileno(), self._input[:CHUNK_BYTES]) :]
        except BrokenPipeError:
            return True  # it reads no further; its status says whether that is a failure
        return not self._input

    def _read(self, stream: IO[bytes]) -> bool:
        read = self._output[stream]
        chunk = os.read(stream.fileno(), CHUNK_BYTES)
        read += chunk
        whole = len(read) if not chunk else read.rfind(b"\n") + 1
        if self._on_line is not None and whole > self._passed_on[stream]:
            for line in bytes(read[self._passed_on[stream] : whole]).decode(errors="replace").splitlines():
                self._on_line(line)
            self._passed_on[stream] = whole
        return not chunk

    def _close(self) -> None:
        for stream in (self._process.stdin, *self._output):
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):
                    stream.close()
