# SPDX-License-Identifier: Apache-2.0
"""Writes native datagrams to the journal without ever blocking a run.

python3-systemd's journal.send (235) holds the interpreter while journald hangs, so the datagram is written here with a
timeout of 200 ms; after one timeout nothing waits again until journald answers. Events that could not be sent are kept
and sent when it does; the state file and the run record never depend on it.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Mapping

from cc_sammy.contract.journal_fields import IDENTIFIER

JOURNAL_SOCKET = "/run/systemd/journal/socket"
SEND_TIMEOUT = 0.2
NOTICE, WARNING, ERROR, DEBUG = 5, 4, 3, 7
# journald accepts larger datagrams by file descriptor only; a longer line of output is truncated.
MAX_VALUE_BYTES = 48 * 1024


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the native journal datagram of the fields (a value with a newline goes with its length)."""
    parts = []
    for name, value in fields.items():
        raw = value.encode(errors="replace")[:MAX_VALUE_BYTES]
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


class JournalWriter:
    """Writes to the journal; never blocks for long and never raises. Thread-safe."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timeout = SEND_TIMEOUT
        self._unsent: deque[bytes] = deque(maxlen=500)
        self.lost = 0

    def __repr__(self) -> str:
        return f"<JournalWriter {len(self._unsent)} unsent, {self.lost} lost>"

    def send(self, message: str, priority: int, fields: Mapping[str, str]) -> None:
        """Write one entry; events (NOTICE and more severe) are kept when journald does not accept them."""
        datagram = encode(
            {
                "MESSAGE": message,
                "PRIORITY": str(priority),
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                **fields,
            }
        )
        with self._lock:
            if priority <= NOTICE:
                self._unsent.append(datagram)
                self._drain()
            elif not self._unsent and not self._write(datagram):
                self.lost += 1

    def flush(self) -> None:
        """Try once more to send what is kept; what is still not accepted counts as lost."""
        with self._lock:
            self._timeout = SEND_TIMEOUT
            self._drain()
            self.lost += len(self._unsent)
            self._unsent.clear()

    def _drain(self) -> None:
        while self._unsent and self._write(self._unsent[0]):
            self._unsent.popleft()

    def _write(self, datagram: bytes) -> bool:
        for _ in range(2):  # a restarted journald has a new socket: reconnect once
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                    self._socket.connect(self._path)
                self._socket.settimeout(self._timeout)
                self._socket.send(datagram)
            except (TimeoutError, BlockingIOError):
                self._timeout = 0.0
                return False
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                self._socket = None
                continue
            self._timeout = SEND_TIMEOUT
            return True
        return False
