# SPDX-License-Identifier: Apache-2.0
"""cloud-init's two files as sources. Both are cut, renamed and packed by logrotate, and emptied by `cloud-init clean`.

A position is the file's first line, as a digest, and an offset in it: that stays true when the file gets another name
or is packed, and is no longer found when the file is gone. Files are read with pread in blocks, never mapped: a mapped
file that is cut kills its reader.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import os
import re
import struct
import tempfile
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from sammy_agent.diagnostics.logs.cloud_init_parser import BLOCK, Anchor, Chunk, Grouper, anchor_before
from sammy_agent.diagnostics.logs.entry import YIELD_EVERY, Entry, Positioned, PositionInvalid, decode
from sammy_agent.diagnostics.logs.query import Query

LOG, OUTPUT = "/var/log/cloud-init.log", "/var/log/cloud-init-output.log"
FIRST_LINE = 1024  # bytes of it that tell a file from others
MAX_UNPACKED_BYTES = 64 * 1024 * 1024  # of a packed file, unpacked
_PACKED = struct.Struct(">8sQ")
QUIET = 0.3  # seconds after which an entry of several lines is taken to be whole
EMPTY = b"\0"  # the position where there was no file yet


@dataclass
class _File:
    """An open file, the present one or a rotated one."""

    descriptor: int
    mark: bytes
    size: int  # up to the end of its last whole line
    changed: int  # microseconds since 1970

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes between two offsets, fewer where the file was cut meanwhile."""
        return os.pread(self.descriptor, max(0, end - start), start)


class CloudInit:
    """One of cloud-init's files with its rotated ones.

    :param line_based: each line is an entry of its own, as in the output of scripts; else an entry begins with a time.
    """

    def __init__(self, path: str, query: Query, *, tag: int, line_based: bool, root: str = "") -> None:
        self.tag, self.notes = tag, []  # type: int, list[str]
        self.path, self.line_based, self._query = root + path, line_based, query
        self._name = os.path.basename(path)

    def end_position(self) -> bytes:
        """Return the end of the present file."""
        with contextlib.ExitStack() as stack:
            file = _opened(self.path, stack)
            return _PACKED.pack(file.mark, file.size) if file else EMPTY

    def read_backwards(self, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        """Yield the newest first; see `Source`."""
        if position == EMPTY:
            return
        mark, end = (None, None) if position is None else _unpack(position)
        with contextlib.ExitStack() as stack:
            for file in self._files(stack):
                if mark is not None and file.mark != mark:
                    continue  # newer than the position
                mark = None
                reached = yield from self._scan(file, file.size if end is None else min(end, file.size), until)
                if reached:
                    return
                end = None

    def _scan(self, file: _File, end: int, until: int | None) -> Generator[Positioned, None, bool]:
        """Yield a file's entries; return whether the query's start time was reached."""
        skipped = 0
        for chunk in _chunks_back(file, end, self.line_based):
            if self._query.since is not None and chunk.time < self._query.since:
                return True
            fits = (until is None or chunk.time <= until) and self.fits(chunk)
            skipped = 0 if fits else skipped + 1
            if fits or skipped % YIELD_EVERY == 0:
                position = _PACKED.pack(file.mark, chunk.end if fits else chunk.start)
                yield Positioned(self.entry(chunk) if fits else None, position)
        return False

    def fits(self, chunk: Chunk) -> bool:
        """Tell whether the query includes an entry, apart from its time."""
        return self._query.includes_level(chunk.level) and self._query.matches(decode(chunk.text))

    def entry(self, chunk: Chunk) -> Entry:
        """Return it as an entry."""
        return Entry(chunk.time, chunk.level, "cloud-init", decode(chunk.text), {"file": self._name})

    def _files(self, stack: contextlib.ExitStack) -> Iterator[_File]:
        """Yield the present file and the rotated ones, newest first; each once, also while they are renamed."""
        seen: set[object] = set()
        is_over = False
        while not is_over:
            is_over = True
            for path in self._paths():
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                file = _opened(path, stack, whole=path != self.path)
                if file and file.mark not in seen:
                    seen.add(file.mark)
                    is_over = False
                    yield file

    def _paths(self) -> list[str]:
        rotated = [(int(found[1]), path) for path in glob.glob(glob.escape(self.path) + ".*")
                   if (found := re.fullmatch(r".*\.(\d{1,3})(\.gz)?", path))]  # fmt: skip
        return [self.path, *(path for _, path in sorted(rotated))]

    def tail(self, position: bytes) -> CloudInitTail:
        """Return what comes after the position."""
        return CloudInitTail(self, position)


class CloudInitTail:
    """A file of cloud-init's from an offset on. What it held before it was renamed is read to its end."""

    def __init__(self, source: CloudInit, position: bytes) -> None:
        self._source = source
        self._stack = contextlib.ExitStack()
        self._mark, self._offset = (b"", 0) if position == EMPTY else _unpack(position)
        self._grouper = Grouper(line_based=source.line_based)
        self._grew = time.monotonic()
        self._file: _File | None = None
        self._open()

    def filenos(self) -> Sequence[int]:
        """Return none: files are looked at."""
        return []

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        self._file = None

    def poll(self) -> Sequence[Entry]:
        """Return what is new; an entry of several lines when its last one has come."""
        chunks: list[Chunk] = []
        if self._file is not None:
            emptied = _mark(self._file.descriptor) != self._mark
            chunks = [] if emptied else self._grown(self._file)
            if emptied or (not chunks and self._is_renamed()):
                chunks += self._grouper.rest()
                self.close()
        if self._file is None:
            self._open()
        return [self._source.entry(chunk) for chunk in chunks if self._source.fits(chunk)]

    def _open(self) -> None:
        self._file = file = _opened(self._source.path, self._stack)
        if file is None:
            return
        if file.mark != self._mark:
            self._mark, self._offset = file.mark, 0
        anchor = anchor_before(file.read, self._offset)
        self._grouper = Grouper(
            line_based=self._source.line_based, at=self._offset, anchor=anchor and anchor[1], time=file.changed
        )

    def _is_renamed(self) -> bool:
        with contextlib.ExitStack() as stack:
            present = _opened(self._source.path, stack)
            return present is not None and present.mark != self._mark

    def _grown(self, file: _File) -> list[Chunk]:
        data = file.read(self._offset, self._offset + BLOCK)
        end = data.rfind(b"\n") + 1 or (BLOCK if len(data) == BLOCK else 0)  # a line without end is taken in pieces
        if end:
            self._offset, self._grew = self._offset + end, time.monotonic()
            return self._grouper.take(data[:end])
        return self._grouper.rest() if time.monotonic() - self._grew > QUIET else []


def _opened(path: str, stack: contextlib.ExitStack, *, whole: bool = False) -> _File | None:
    """Open a log, unpacked if it is packed; None where there is none, or not one line of it yet. PermissionError.

    :param whole: its last line counts also without its end: nobody writes to it any more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    changed = int(os.fstat(descriptor).st_mtime * 1e6)
    if path.endswith(".gz"):
        if (unpacked := _unpacked(descriptor)) is None:
            return None
        descriptor = stack.enter_context(unpacked).fileno()
    head = os.pread(descriptor, FIRST_LINE, 0)
    if b"\n" not in head and len(head) < FIRST_LINE:
        return None
    size = os.fstat(descriptor).st_size
    return _File(descriptor, _mark(descriptor), size if whole else _last_line_end(descriptor, size), changed)


def _mark(descriptor: int) -> bytes:
    return hashlib.sha256(os.pread(descriptor, FIRST_LINE, 0).partition(b"\n")[0]).digest()[:8]


def _unpacked(descriptor: int) -> IO[bytes] | None:
    """Return a packed file's contents as a file without a name; None where it is damaged or still being written."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        packed = stack.enter_context(gzip.open(os.fdopen(os.dup(descriptor), "rb")))
        left = MAX_UNPACKED_BYTES  # a few bytes must not fill the disk
        try:
            while left > 0 and (data := packed.read(min(BLOCK, left))):
                left -= file.write(data)
            file.flush()
        except (OSError, EOFError, zlib.error):
            return None
        packed.close()
        stack.pop_all()
        return file


def _last_line_end(descriptor: int, size: int) -> int:
    """Return the offset behind the last whole line."""
    end = size
    while end:
        start = max(0, end - BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _chunks_back(file: _File, end: int, line_based: bool) -> Iterator[Chunk]:
    """Yield the entries before an offset, newest first; block by block, each told apart from its beginning on."""
    known: tuple[int, Anchor] | None = None
    while end > 0:
        start = max(0, end - BLOCK)
        data = file.read(start, end)
        if not data:
            return  # cut meanwhile
        if start:
            line = data.find(b"\n") + 1
            if 0 < line < len(data):
                start, data = start + line, data[line:]
        if known is None or known[0] > start:
            known = anchor_before(file.read, start)
        grouper = Grouper(line_based=line_based, at=start, anchor=known and known[1], time=file.changed)
        chunks = [*grouper.take(data), *grouper.rest()]
        if start and len(chunks) > 1:
            del chunks[0]  # it may have begun in the block before
        yield from reversed(chunks)
        end = chunks[0].start if chunks else start


def _unpack(position: bytes) -> tuple[bytes, int]:
    try:
        mark, offset = _PACKED.unpack(position)
    except struct.error:
        raise PositionInvalid("not in a file") from None
    return mark, offset
