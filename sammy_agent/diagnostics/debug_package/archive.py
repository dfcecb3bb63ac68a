# SPDX-License-Identifier: Apache-2.0
"""The archive as it is written: a tar whose every file is on disk, and can be unpacked, before the next one begins.

So an archive that is cut anywhere still gives what stands before the cut. A file for which no room is left is rolled
back as if it had never been there.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import IO

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime import files

FOLDER = "sammy-debug"
CHUNK = 64 * 1024
BLOCK = 512
TRAILER_RESERVE = 24 * 1024  # compressed bytes for results, manifest and sums at the end


class GzipStream:
    """One gzip stream in parts: each can be unpacked once it has ended, and rolled back until the next begins."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._saved, self._saved_size = self._stream, 0

    def begin(self) -> None:
        """Begin a part."""
        self._saved, self._saved_size = self._stream.copy(), self._file.tell()

    def write(self, data: bytes) -> None:
        """Compress more of the part."""
        self._file.write(self._stream.compress(data))

    def end(self) -> None:
        """Have all of the part in the file."""
        self._file.write(self._stream.flush(zlib.Z_FULL_FLUSH))
        self._file.flush()

    def rollback(self) -> None:
        """Undo the part."""
        self._stream = self._saved
        self._file.flush()
        self._file.seek(self._saved_size)
        self._file.truncate()

    def close(self) -> None:
        """End the stream."""
        self._file.write(self._stream.flush())


class Archive:
    """The tar being written.

    :param max_bytes: compressed bytes it may have; None is without a bound.
    """

    def __init__(self, file: IO[bytes], max_bytes: int | None = None) -> None:
        self._file, self._gzip, self._max_bytes = file, GzipStream(file), max_bytes
        self.sums: list[tuple[str, int, str]] = []  # name, bytes, sha256

    def add(self, name: str, content: IO[bytes], size: int, *, always: bool = False) -> bool:
        """Write a file of `size` bytes; return False, having written nothing, when there is no room.

        :param always: also when it takes what is reserved for the trailer.
        """
        info = tarfile.TarInfo(f"{FOLDER}/{name}")
        info.size, info.mtime, info.mode = size, int(time.time()), files.PRIVATE
        digest = hashlib.sha256()
        self._gzip.begin()
        self._gzip.write(info.tobuf(tarfile.GNU_FORMAT))
        while data := content.read(CHUNK):
            digest.update(data)
            self._gzip.write(data)
            if not always and self._is_full():
                self._gzip.rollback()
                return False
        self._gzip.write(bytes(-size % BLOCK))
        self._gzip.end()
        if not always and self._is_full():
            self._gzip.rollback()
            return False
        self.sums.append((name, size, digest.hexdigest()))
        return True

    def close(self) -> None:
        """Write the tar's end."""
        self._gzip.begin()
        self._gzip.write(bytes(2 * BLOCK))
        self._gzip.end()
        self._gzip.close()
        self._file.flush()

    def _is_full(self) -> bool:
        if self._max_bytes is None:
            return False
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size > self._max_bytes - TRAILER_RESERVE


def decompress(path: str) -> Iterator[bytes]:
    """Yield the tar of a compressed archive, piece by piece.

    :raises AgentError: it is damaged.
    """
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            data = stream.decompress(data, 16 * CHUNK)
            while data:
                yield data
                data = stream.decompress(stream.unconsumed_tail, 16 * CHUNK)
    if not stream.eof:
        raise AgentError(f"{path} cannot be decompressed again")
