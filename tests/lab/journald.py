# SPDX-License-Identifier: Apache-2.0
"""A journald of one's own in a mount namespace: its journal lies in a folder, nothing of the host's is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cc_sammy.engine.journal_writer import encode
from tests.lab.shell import run, unmount, wait_until

JOURNALD = "/lib/systemd/systemd-journald"
SCRIPT = f"""set -e
mount --make-rprivate /
mkdir -p /var/log/journal
mount --bind "$1/var/log/journal" /var/log/journal
mount --bind "$1/run" /run
mkdir -p /run/systemd/journal /run/log/journal
mount -t tmpfs tmpfs /etc/systemd
printf '[Journal]\\nStorage=persistent\\nRateLimitBurst=0\\nSystemMaxFileSize=%s\\n' "$2" >/etc/systemd/journald.conf
exec {JOURNALD}
"""


class Journald:
    """One journald whose folders are `root`'s /var/log/journal and /run/log/journal, as `journalctl --root` has them.

    :param file_size: at which it begins a new file.
    """

    def __init__(self, root: Path, *, file_size: str = "64M") -> None:
        self.root = root
        self._file_size = file_size
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        for folder in ("var/log/journal", "run"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "tmpfs", root / "run"])  # on a disk, journald does not remove what it has flushed

    def start(self, *, flush: bool = True) -> None:
        """Start it and wait until it listens; without `flush` it keeps to /run/log/journal, as early in a boot."""
        (self.root / "run/systemd/journal/socket").unlink(missing_ok=True)
        (self.root / "run/systemd/journal/flushed").unlink(missing_ok=True)
        self._process = subprocess.Popen(["unshare", "-m", "sh", "-c", SCRIPT, "sh", self.root, self._file_size])
        # it writes to /run first; a signal that comes before it does so would flush nothing
        wait_until(lambda: bool(self._files("run/log/journal")), "journald runs", 30)
        if flush:
            self.flush()

    def stop(self) -> None:
        """Stop it as a shutdown does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Stop it and take its /run away."""
        self.stop()
        unmount(self.root / "run", then_remove=self.root / "run")

    def flush(self) -> None:
        """Move the journal from /run to /var."""
        self._signal(signal.SIGUSR1)
        wait_until(lambda: bool(self.files()) and not self._files("run/log/journal"), "the journal is flushed", 30)

    def rotate(self) -> None:
        """Begin a new file."""
        before = len(self.files())
        self._signal(signal.SIGUSR2)
        wait_until(lambda: len(self.files()) > before, "the journal is rotated", 30)

    def vacuum(self) -> None:
        """Remove every file but the one that is written."""
        run(["journalctl", "-q", "-D", self.root / "var/log/journal", "--vacuum-files=1"])
        assert len(self.files()) == 1

    def files(self) -> list[Path]:
        """Return the files on disk."""
        return self._files("var/log/journal")

    def _files(self, folder: str) -> list[Path]:
        return list((self.root / folder).glob("*/*.journal"))

    def send(self, message: str | bytes, priority: int = 6, **fields: str) -> None:
        """Write one entry, waiting while journald is busy."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.connect(str(self.root / "run/systemd/journal/socket"))
        raw = message if isinstance(message, bytes) else message.encode()
        head = encode({"PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "test", **fields})
        self._socket.send(head + b"MESSAGE\n" + len(raw).to_bytes(8, "little") + raw + b"\n")

    def holds(self, words: str) -> bool:
        """Tell whether the newest entries have a message with these words."""
        said = run(["journalctl", "-q", "--root", self.root, "-o", "cat", "-n", "500"], check=False).stdout
        return words in said

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextlib.contextmanager
def journald(root: Path, *, file_size: str = "64M", flush: bool = True) -> Iterator[Journald]:
    """Yield a journald that runs, and stop it."""
    found = Journald(root, file_size=file_size)
    try:
        found.start(flush=flush)
        yield found
    finally:
        found.close()
