# SPDX-License-Identifier: Apache-2.0
"""Gets a member's text: the end of what a program says or a file holds, within bounds of size and time.

Sources grow, shrink and vanish while they are read; whatever happens is said in words and never ends the package.
"""

from __future__ import annotations

import contextlib
import glob
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sammy_agent.debug_package.members import Command, Files, Member

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "COLUMNS": "200",
}
CHUNK = 64 * 1024
LONGEST_SECRET = 16 * 1024  # bytes; where a text without lines is cut, so much more of its beginning goes


@dataclass(frozen=True)
class Piece:
    """One file of the package: its text, and what there is to say of it ("" where nothing)."""

    name: str
    text: str
    note: str = ""


def pieces(member: Member, root: str, seconds: float) -> Iterator[Piece]:
    """Yield the member's files.

    :param root: put before the paths of files.
    :param seconds: how long a program may take.
    """
    if isinstance(member, Command):
        yield _said(member, seconds)
    else:
        yield from _held(member, root)


def _said(member: Command, seconds: float) -> Piece:
    try:
        process = subprocess.Popen(
            member.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return Piece(member.name, "", f"{member.argv[0]}: {error.strerror}")
    end = _End(member.limit)
    try:
        in_time = _drain(process, end, time.monotonic() + seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    notes = [] if in_time else [f"ended after {seconds:.0f} s, before it was done"]
    if in_time and process.returncode != 0:
        notes.append(f"{' '.join(member.argv)} ended with status {process.returncode}")
    return Piece(member.name, end.text(), "; ".join([*notes, *end.notes()]))


def _drain(process: subprocess.Popen[bytes], end: _End, until: float) -> bool:
    """Read until the program ends; tell whether it did in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not selector.select(left):
                continue
            data = os.read(process.stdout.fileno(), CHUNK)
            if not data:
                break
            end.add(data)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.1, until - time.monotonic()))
        return True
    return False


def _held(member: Files, root: str) -> Iterator[Piece]:
    found = sorted(glob.glob(root + member.pattern))
    if not found:
        yield Piece(f"{member.name}/{os.path.basename(member.pattern)}", "", f"there is no {member.pattern}")
    for path in found:
        name = f"{member.name}/{os.path.basename(path)}"
        end = _End(member.limit)
        try:
            # a FIFO in a file's place must not hold the package up
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size > member.limit:
                    end.skipped = file.seek(size - member.limit)
                for _ in range(2 * member.limit // CHUNK + 2):  # a file that grows faster than we read
                    data = file.read(CHUNK)
                    if not data:
                        break
                    end.add(data)
        except OSError as error:
            yield Piece(name, "", f"{path}: {error.strerror}")
            continue
        yield Piece(name, end.text(), "; ".join(end.notes()))


class _End:
    """The end of a stream of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.skipped = 0

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * self._limit:
            self._trim()

    def _trim(self) -> None:
        over = len(self._kept) - self._limit
        if over > 0:
            self.skipped += over
            del self._kept[:over]

    def text(self) -> str:
        """Return it as text, from a line's beginning where something was left out: half a secret has no form."""
        self._trim()
        if self.skipped:
            line = self._kept.find(b"\n")
            over = line + 1 if 0 <= line < len(self._kept) - 1 else min(LONGEST_SECRET, len(self._kept))
            self.skipped += over
            del self._kept[:over]
        return self._kept.decode("utf-8", errors="replace")

    def notes(self) -> list[str]:
        return [f"the first {self.skipped} bytes are left out"] if self.skipped else []
