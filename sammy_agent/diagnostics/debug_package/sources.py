# SPDX-License-Identifier: Apache-2.0
"""Reads a member's bytes in chunks: the tail of a program's output or of a file, bounded in size and time.

Sources grow, shrink and vanish while they are read; whatever happens becomes a note and never fails the package.
"""

from __future__ import annotations

import glob
import json
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from sammy_agent.base.runtime import control_client, process
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.process import Program
from sammy_agent.diagnostics.debug_package import sqlite_dump
from sammy_agent.diagnostics.debug_package.members import Command, Computed, DatabaseDump, FileGlob, Member, SocketQuery

ENVIRONMENT = {**process.ENVIRONMENT, "COLUMNS": "400", "SYSTEMD_COLORS": "0", "NO_COLOR": "1"}
CHUNK = 64 * 1024
MAX_SECRET_BYTES = 16 * 1024  # bytes; where a text without line breaks is cut, so much more of its head is dropped


class MemberSource:
    """One file of the package: its name, its bytes (once), and afterwards its notes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    def __repr__(self) -> str:
        return f"<MemberSource {self.name}>"

    def read(self) -> Iterator[bytes]:
        """Yield its bytes."""
        return iter(())


def sources(member: Member, paths: Paths, seconds: float, share: float = 1.0) -> Iterator[MemberSource]:
    """Yield the member's files.

    :param seconds: how long one program may take.
    :param share: of the member's usual limit in bytes.
    """
    limit = min(member.limit, max(4096, int(member.limit * share)))
    if isinstance(member, Command):
        yield _CommandSource(member, limit, seconds)
    elif isinstance(member, FileGlob):
        yield from _file_sources(member, paths.root, limit)
    elif isinstance(member, DatabaseDump):
        yield _DatabaseSource(member, paths, limit, seconds)
    elif isinstance(member, SocketQuery):
        yield _SocketSource(member, paths)
    else:
        yield _ComputedSource(member, paths)


class _MissingSource(MemberSource):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(name)
        self.notes = [why]


class _CommandSource(MemberSource):
    """The output of a program. Its tail is kept, never more than the limit in memory."""

    def __init__(self, member: Command, limit: int, seconds: float) -> None:
        super().__init__(member.name)
        self._argv, self._limit, self._seconds = member.argv, limit, seconds
        self._newest_first = member.newest_first

    def read(self) -> Iterator[bytes]:
        buffer = _HeadBuffer(self._limit) if self._newest_first else _TailBuffer(self._limit)
        streams = (process.STDOUT,)
        with Program(
            self._argv, self._seconds, streams=streams, merge=True, environment=ENVIRONMENT, directory="/"
        ) as program:
            for _, data in program.chunks():
                if not buffer.add(data):
                    break  # more is not wanted
        if program.problem:
            self.notes.append(f"{self._argv[0]}: {program.problem}")
        elif program.status and not buffer.full:
            reason = f": {buffer.last_line()}" if buffer.last_line() else ""
            self.notes.append(f"{self._argv[0]} {process.exit_reason(program.status)}{reason}")
        self.notes += buffer.notes()
        yield from buffer.take()


class _TailBuffer:
    """The tail of a byte stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: deque[bytes] = deque()
        self._size = self.skipped = 0

    @property
    def full(self) -> bool:
        """Whether nothing more is wanted."""
        return False

    def add(self, data: bytes) -> bool:
        """Take more; return whether to go on."""
        self._kept.append(data)
        self._size += len(data)
        while self._size - len(self._kept[0]) >= self._limit:
            self._drop(len(self._kept[0]))
        return not self.full

    def take(self) -> Iterator[bytes]:
        """Yield it, from the start of a line if truncated: half a secret is not recognised."""
        if self._size > self._limit:
            self._drop(self._size - self._limit)
        if self.skipped:
            self._to_a_line()
        while self._kept:
            yield self._kept.popleft()

    def last_line(self) -> str:
        """Return its last line, for a note."""
        lines = self._kept[-1].decode("utf-8", errors="replace").strip().splitlines() if self._kept else []
        return lines[-1][:200] if lines else ""

    def notes(self) -> list[str]:
        over = max(0, self._size - self._limit)
        return [f"the first {self.skipped + over} bytes are left out"] if self.skipped + over else []

    def _to_a_line(self) -> None:
        passed = 0
        for chunk in self._kept:
            at = chunk.find(b"\n")
            if at >= 0 and passed + at + 1 < self._size:
                return self._drop(passed + at + 1)
            passed += len(chunk)
        return self._drop(min(MAX_SECRET_BYTES, self._size))

    def _drop(self, count: int) -> None:
        self.skipped += count
        self._size -= count
        while count and count >= len(self._kept[0]):
            count -= len(self._kept.popleft())
        if count:
            self._kept[0] = self._kept[0][count:]


class _HeadBuffer(_TailBuffer):
    """The head of a stream that has the newest entry first; yielded oldest first, as people read."""

    @property
    def full(self) -> bool:
        return self._size >= self._limit

    def add(self, data: bytes) -> bool:
        self._kept.append(data)
        self._size += len(data)
        return not self.full

    def take(self) -> Iterator[bytes]:
        """Yield entry by entry; indented lines belong to the entry before them."""
        if self._size >= self._limit:
            self._kept[-1] = self._kept[-1][: len(self._kept[-1]) - (self._size - self._limit)]
            while self._kept:  # half a line, which may be half a secret
                last = self._kept.pop()
                if (cut := last.rfind(b"\n") + 1) > 0:
                    self._kept.append(last[:cut])
                    break
        ready: list[bytes] = []
        following: list[bytes] = []
        rest = b""
        while self._kept:
            yield b"".join(ready)
            ready.clear()
            lines = (self._kept.pop() + rest).split(b"\n")
            rest = lines.pop(0) if self._kept else b""
            for line in reversed(lines):
                if line.startswith(b" "):
                    following.append(line)
                elif line:
                    ready.append(b"\n".join([line, *reversed(following), b""]))
                    following.clear()
        yield b"".join(ready)

    def notes(self) -> list[str]:
        return ["older entries are left out"] if self.full else []


def _file_sources(member: FileGlob, root: str, limit: int) -> Iterator[MemberSource]:
    found = sorted(glob.glob(root + member.pattern))
    if not found:
        yield _MissingSource(f"{member.name}/{os.path.basename(member.pattern)}", f"there is no {member.pattern}")
    for path in found[-member.most :]:
        yield _FileSource(f"{member.name}/{os.path.basename(path)}", path, limit)


class _FileSource(MemberSource):
    """The tail of a file as it is when opened: what is appended meanwhile is not read."""

    def __init__(self, name: str, path: str, limit: int) -> None:
        super().__init__(name)
        self._path, self._limit = path, limit

    def read(self) -> Iterator[bytes]:
        try:
            # a FIFO in a file's place must not hold the package up
            with open(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                left = self._limit
                if size > left:
                    yield from self._from_a_line(file, size - left)
                    left -= file.tell() - (size - left)
                while left > 0 and (data := file.read(min(CHUNK, left))):
                    left -= len(data)
                    yield data
                if left <= 0 and file.read(1):
                    self.notes.append("what was written to it meanwhile is left out")
        except OSError as error:
            self.notes.append(f"{self._path}: {error.strerror}")

    def _from_a_line(self, file: Any, begin: int) -> Iterator[bytes]:
        file.seek(begin)
        head = file.read(min(MAX_SECRET_BYTES, self._limit)) or b""
        _, end, rest = head.partition(b"\n")
        dropped = len(head) - len(rest) if end and rest else len(head)
        self.notes.append(f"the first {begin + dropped} bytes are left out")
        if dropped < len(head):
            yield head[dropped:]


class _DatabaseSource(MemberSource):
    """Rows of a database as JSON lines."""

    def __init__(self, member: DatabaseDump, paths: Paths, limit: int, seconds: float) -> None:
        super().__init__(member.name)
        self._member, self._path, self._limit, self._seconds = member, paths.under_root(member.path), limit, seconds

    def read(self) -> Iterator[bytes]:
        if not os.path.exists(self._path):
            self.notes.append(f"there is no {self._member.path}")
            return
        yield from sqlite_dump.lines(self._path, self._member.private, self._limit, self._seconds, self.notes.append)


class _SocketSource(MemberSource):
    """The running agent's answer on its control socket."""

    def __init__(self, member: SocketQuery, paths: Paths) -> None:
        super().__init__(member.name)
        self._verb, self._socket = member.verb, paths.socket

    def read(self) -> Iterator[bytes]:
        answer = control_client.ask(self._socket, self._verb)
        if answer is None:
            self.notes.append("the agent does not answer: systemctl status sammy-agent")
            return
        if not answer.get("ok"):
            self.notes.append(str(answer.get("error")))
        yield json.dumps(answer, indent=1).encode() + b"\n"


class _ComputedSource(MemberSource):
    """A document that this process computes itself."""

    def __init__(self, member: Computed, paths: Paths) -> None:
        super().__init__(member.name)
        self._make, self._paths = member.make, paths

    def read(self) -> Iterator[bytes]:
        try:
            document = self._make(self._paths)
        except OSError as error:
            self.notes.append(f"{error.filename}: {error.strerror}")
            return
        yield json.dumps(document, indent=1).encode() + b"\n"
