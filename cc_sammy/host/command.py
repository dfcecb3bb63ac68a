# SPDX-License-Identifier: Apache-2.0
"""Commands while they run: what they print is passed on line by line, and all of them end when the run is stopped.

cloud-init's unit is stopped with KillMode=process: apt, tar and the like would go on without anybody who waits for
them, and hold dpkg's lock against the next run.
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

from cc_sammy.host.usage import Child

CHUNK = 64 * 1024
# Seconds that are waited for what a command's own children still print after it has ended: a daemon that a package's
# script started may keep the pipe for ever.
AFTERWARDS = 2.0
LOOK = 0.5


class Children:
    """The commands of all steps that run now. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[Child] = set()
        self.stopped = threading.Event()

    def __repr__(self) -> str:
        return f"<Children {len(self._live)} live{', stopped' if self.stopped.is_set() else ''}>"

    @contextlib.contextmanager
    def listed(self, child: Child, *, tidying: bool) -> Iterator[None]:
        """List the command as long as it runs, so that `stop` ends it; what puts something back is let finish."""
        with self._lock:
            self._live.add(child)
            if self.stopped.is_set() and not tidying:
                kill(child)
        try:
            yield
        finally:
            with self._lock:
                self._live.discard(child)

    def stop(self) -> None:
        """End every command with all its children; those that begin from now on end at once."""
        with self._lock:
            self.stopped.set()
            for child in self._live:
                kill(child)


def kill(child: Child) -> None:
    """Kill the command's process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class Conversation:
    """One command's input and output: its lines are told as they come, and the whole is kept."""

    def __init__(self, child: Child, given: bytes, tell: Callable[[str], None] | None) -> None:
        self._child, self._given, self._tell = child, given, tell
        self._said: dict[IO[bytes], bytearray] = {
            stream: bytearray() for stream in (child.stdout, child.stderr) if stream
        }
        self._told = dict.fromkeys(self._said, 0)  # bytes of it that went out as lines

    @property
    def said(self) -> tuple[str, str]:
        """What came on standard output and standard error."""
        out, err = (bytes(self._said[stream]).decode(errors="replace") for stream in self._said)
        return out, err

    def hold(self, end: float) -> None:
        """Feed it its input and take what it prints until it has ended; TimeoutExpired at `end` (monotonic)."""
        enough = float("inf")
        with selectors.DefaultSelector() as selector:
            self._open(selector)
            while selector.get_map() and (now := time.monotonic()) < enough:
                if now >= end:
                    raise subprocess.TimeoutExpired(self._child.args, 0.0)
                ready = selector.select(min(end - now, LOOK))
                for key, _ in ready:
                    self._serve(selector, key.fileobj)  # type: ignore[arg-type]  # they are the pipes' files
                if not ready and self._child.has_ended():
                    enough = min(enough, now + AFTERWARDS)
        self._close()
        self._child.wait(max(0.01, end - time.monotonic()))

    def finish(self) -> None:
        """Take what is still there of a killed command, and its status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.hold(time.monotonic() + AFTERWARDS)
        self._close()
        self._child.wait()

    def _open(self, selector: selectors.BaseSelector) -> None:
        for stream in self._said:
            if not stream.closed:
                selector.register(stream, selectors.EVENT_READ)
        pipe = self._child.stdin
        if pipe is not None and not pipe.closed:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE)

    def _serve(self, selector: selectors.BaseSelector, stream: IO[bytes]) -> None:
        done = self._feed(stream) if stream is self._child.stdin else self._take(stream)
        if done:
            selector.unregister(stream)
            stream.close()

    def _feed(self, pipe: IO[bytes]) -> bool:
        try:
            self._given = self._given[os.write(pipe.fileno(), self._given[:CHUNK]) :]
        except BrokenPipeError:
            return True  # it wants no more; its status says whether that was right
        return not self._given

    def _take(self, stream: IO[bytes]) -> bool:
        said = self._said[stream]
        chunk = os.read(stream.fileno(), CHUNK)
        said += chunk
        whole = len(said) if not chunk else said.rfind(b"\n") + 1
        if self._tell is not None and whole > self._told[stream]:
            for line in bytes(said[self._told[stream] : whole]).decode(errors="replace").splitlines():
                self._tell(line)
            self._told[stream] = whole
        return not chunk

    def _close(self) -> None:
        for stream in (self._child.stdin, *self._said):
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):
                    stream.close()
