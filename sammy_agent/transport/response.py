# SPDX-License-Identifier: Apache-2.0
"""The guarded reader of answers: what a peer sends is refused where http.client and urllib3 would guess.

Below urllib3, in http.client's own response, so that 1.26 and 2.x read alike. What it ends, each seen with a peer that
meant harm or did not know better:

- a chunk of `-1` was read as "all that comes": 7.9 GiB in an agent. Lengths of chunks are hexadecimal digits, and the
  chunks are unpacked here: the layers above see a body that ends.
- `Content-Length: 47, 47` or `-5` was no length at all, and the answer "as long as the connection lives".
- 980 bytes of nested gzip took a gigabyte before a bound on the unpacked body could be applied. We ask for no
  encoding (every session sends `Accept-Encoding: identity`), so an answer that has one is refused unread.
- 102 and 103 are interim answers like 100, not the answer.
"""

from __future__ import annotations

import http.client
import io
import re
from typing import Any

from sammy_agent.transport.errors import MalformedResponse

MAX_INTERIM = 10  # answers of 1xx before the one that counts
MAX_LINE = 1024  # bytes of a line between chunks; RFC 9112 gives no bound, and extensions are nobody's here
MAX_TRAILERS = 100
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")


class GuardedResponse(http.client.HTTPResponse):
    """http.client's response, strict about framing. Raises MalformedResponse, which urllib3 takes for its own."""

    def begin(self) -> None:
        """Read the header to its end, judge it, and put the chunks' reader before a chunked body."""
        file: Any = self.fp
        reader: Any = _HeaderReader(file)
        self.fp = reader
        try:
            super().begin()
        finally:
            if self.fp is reader:
                self.fp = file
        if reader.last not in {b"\r\n", b"\n"}:
            raise http.client.RemoteDisconnected("the answer's header ended early")
        self._check_framing()

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line of the final answer; interim ones are consumed with their headers."""
        for _ in range(MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            # 100 is http.client's to skip; 101 answers an upgrade, which is never asked for here
            if not 102 <= status <= 199:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise MalformedResponse(f"more than {MAX_INTERIM} interim answers")

    def _check_framing(self) -> None:
        lengths = self.headers.get_all("Content-Length") or []
        encodings = self.headers.get_all("Transfer-Encoding") or []
        if encodings and (lengths or [one.strip().lower() for one in encodings] != ["chunked"]):
            both = " beside a Content-Length" if lengths else ""
            raise MalformedResponse(
                f"Transfer-Encoding is {', '.join(encodings)[:100]!r}{both}; allowed is chunked alone"
            )
        if len(set(lengths)) > 1 or not all(_LENGTH.match(one.strip()) for one in lengths):
            raise MalformedResponse(f"Content-Length is {', '.join(lengths)[:100]!r}; allowed is one whole number")
        packed = self.headers.get("Content-Encoding", "identity").strip().lower()
        if packed not in ("", "identity"):
            raise MalformedResponse(f"Content-Encoding is {packed[:100]!r}; nothing but identity was asked for")
        if self.chunked and self.fp is not None and self.length != 0:
            # From here on the body is one that ends by itself, for http.client and for urllib3 on top of it.
            self.chunked = False
            self.fp = ChunkedReader(self.fp)  # type: ignore[assignment]  # all that is read of it, it can
            del self.headers["Transfer-Encoding"]


class _HeaderReader:
    """Remembers the last line read of a header; all else is the file's."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, *args: Any) -> bytes:
        self.last = self._file.readline(*args)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ChunkedReader(io.RawIOBase):
    """A chunked body as a file that ends after its last chunk and trailers; MalformedResponse where it is none."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = 0  # of the chunk being read
        self._first, self._ended = True, False

    def readable(self) -> bool:
        """Return True: io asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the present chunk; 0 after the last."""
        if self._ended or not len(buffer):
            return 0
        if not self._left and not self._next_chunk():
            return 0
        data = self._file.read1(min(len(buffer), self._left))
        if not data:
            raise http.client.IncompleteRead(b"", self._left)
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def read1(self, size: int = -1) -> bytes:
        """Read what one chunk has, which is what `read` does too: what came before a break is not lost."""
        return self.read(size) or b""

    def _next_chunk(self) -> bool:
        """Begin the next chunk; False at the last."""
        if not self._first and self._line() not in (b"\r\n", b"\n"):
            raise MalformedResponse("a chunk is longer than it says")
        self._first = False
        line = self._line()
        size = _CHUNK_SIZE.match(line)
        if size is None:
            raise MalformedResponse(f"the length of a chunk is {line[:50]!r}; allowed are hexadecimal digits")
        self._left = int(size[1], 16)
        if self._left == 0:
            self._skip_trailers()
            self._ended = True
        return not self._ended

    def _skip_trailers(self) -> None:
        for _ in range(MAX_TRAILERS):
            if self._line() in (b"\r\n", b"\n"):
                return
        raise MalformedResponse(f"more than {MAX_TRAILERS} trailers")

    def _line(self) -> bytes:
        line: bytes = self._file.readline(MAX_LINE + 1)
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise MalformedResponse(f"a line between chunks is longer than {MAX_LINE} bytes")
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        """Close the file below as well."""
        try:
            super().close()
        finally:
            self._file.close()
