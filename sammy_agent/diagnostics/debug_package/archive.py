# SPDX-License-Identifier: Apache-2.0
"""The archive as it is written: a tar whose every file is on disk, and can be unpacked, before the next one begins.

So an archive that is cut anywhere still gives what stands before the cut. A file for which no room is left is taken
back as if it had never been there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime import files

FOLDER = "sammy-debug"
CHUNK = 64 * 1024
BLOCK = 512
RESERVE = 24 * 1024  # packed bytes kept for the account at the end


class Packer(Protocol):
    """Packs one part of the stream after the other into a file; a part may be taken back until the next begins."""

    def begin(self) -> None:
        """Begin a part."""

    def write(self, data: bytes) -> None:
        """Pack more of the part."""

    def end(self) -> None:
        """Have all of the part in the file."""

    def take_back(self) -> None:
        """Undo the part."""

    def close(self) -> None:
        """End the stream."""


class Gzip:
    """One gzip stream; after each part all of it is there to be unpacked."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._saved, self._at = self._stream, 0

    def begin(self) -> None:  # noqa: D102  (Packer's)
        self._saved, self._at = self._stream.copy(), self._file.tell()

    def write(self, data: bytes) -> None:  # noqa: D102
        self._file.write(self._stream.compress(data))

    def end(self) -> None:  # noqa: D102
        self._file.write(self._stream.flush(zlib.Z_FULL_FLUSH))
        self._file.flush()

    def take_back(self) -> None:  # noqa: D102
        self._stream = self._saved
        _cut(self._file, self._at)

    def close(self) -> None:  # noqa: D102
        self._file.write(self._stream.flush())


class Zstd:
    """A frame a part, by the program zstd: its library for Python is in no package that we depend on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at = file, 0
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:  # noqa: D102
        self._file.flush()
        self._at = self._file.tell()
        try:
            self._process = subprocess.Popen(["zstd", "-q", "-c", "-6"], stdin=subprocess.PIPE, stdout=self._file)
        except FileNotFoundError as error:
            raise AgentError("there is no zstd on this machine", "Install the package zstd, or take .tar.gz") from error

    def write(self, data: bytes) -> None:  # noqa: D102
        assert self._process is not None and self._process.stdin is not None  # between begin and end
        self._process.stdin.write(data)

    def end(self) -> None:  # noqa: D102
        self._finish()
        self._file.seek(0, 2)

    def take_back(self) -> None:  # noqa: D102
        self._finish()
        _cut(self._file, self._at)

    def close(self) -> None:  # noqa: D102
        self._finish()

    def _finish(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.communicate()
        if process.returncode != 0:
            raise AgentError(f"zstd ended with status {process.returncode}", "Is the disk full? df -h")


def _cut(file: IO[bytes], at: int) -> None:
    file.flush()
    file.seek(at)
    file.truncate()


class Archive:
    """The tar being written.

    :param most: packed bytes it may have; None is without a bound.
    """

    def __init__(self, file: IO[bytes], packer: Packer, most: int | None = None) -> None:
        self._file, self._packer, self._most = file, packer, most
        self.sums: list[tuple[str, int, str]] = []  # name, bytes, sha256

    def add(self, name: str, content: IO[bytes], size: int, *, always: bool = False) -> bool:
        """Write a file of `size` bytes; return False, having written nothing, when there is no room.

        :param always: also when that takes what is kept for the account.
        """
        info = tarfile.TarInfo(f"{FOLDER}/{name}")
        info.size, info.mtime, info.mode = size, int(time.time()), files.PRIVATE
        digest = hashlib.sha256()
        self._packer.begin()
        self._packer.write(info.tobuf(tarfile.GNU_FORMAT))
        while data := content.read(CHUNK):
            digest.update(data)
            self._packer.write(data)
            if not always and self._is_full():
                self._packer.take_back()
                return False
        self._packer.write(bytes(-size % BLOCK))
        self._packer.end()
        if not always and self._is_full():
            self._packer.take_back()
            return False
        self.sums.append((name, size, digest.hexdigest()))
        return True

    def close(self) -> None:
        """Write the tar's end."""
        self._packer.begin()
        self._packer.write(bytes(2 * BLOCK))
        self._packer.end()
        self._packer.close()
        self._file.flush()

    def _is_full(self) -> bool:
        if self._most is None:
            return False
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size > self._most - RESERVE


def unpacked(path: str, compression: str) -> Iterator[bytes]:
    """Yield the tar of a packed archive, piece by piece.

    :raises AgentError: it cannot be unpacked.
    """
    if compression == "zst":
        with subprocess.Popen(["zstd", "-q", "-d", "-c", path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            with contextlib.closing(process.stdout):
                while data := process.stdout.read(CHUNK):
                    yield data
        if process.returncode != 0:
            raise AgentError(f"{path} cannot be unpacked again")
        return
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            data = stream.decompress(data, 16 * CHUNK)
            while data:
                yield data
                data = stream.decompress(stream.unconsumed_tail, 16 * CHUNK)
    if not stream.eof:
        raise AgentError(f"{path} cannot be unpacked again")
