# SPDX-License-Identifier: Apache-2.0
"""What commands cost, from the kernel's own account of each ended child (wait4), for its step and by program.

RUSAGE_CHILDREN knows only the sum over all steps, and a highest peak that belongs to nobody. Bytes are wait4's blocks
too: they are the counters of /proc/<pid>/io (read_bytes, write_bytes), but come with the status, with no further call
and no race with the child's end. What systemd, dockerd or dpkg's daemons do on a step's behalf is no child of ours and
is not in it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from typing import NamedTuple

BLOCK = 512  # bytes of ru_inblock and ru_oublock, whatever the disk's own are (getrusage(2))
FIRST_LOOK, LONGEST_LOOK = 0.0005, 0.05  # seconds between two looks at a child that must end by a deadline


class Usage(NamedTuple):
    """What ended commands used, together with the children they waited for.

    :param peak_kb: the largest resident size of one of them, in KiB; None when none was larger than this process.
        A child begins with its parent's peak (exec keeps it), so a smaller one cannot be told.
    """

    cpu_ms: float = 0.0
    peak_kb: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]  # not a tuple's
        peaks = [peak for peak in (self.peak_kb, other.peak_kb) if peak is not None]
        return Usage(
            self.cpu_ms + other.cpu_ms,
            max(peaks, default=None),
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
        )


class Child(subprocess.Popen[bytes]):
    """A command whose end is taken with wait4, which tells what it used."""

    usage: Usage | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end as Popen does. TimeoutExpired when it has not come in so many seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK
        while self.returncode is None and not self._reap(os.WNOHANG if end is not None else 0):
            left = 0.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_LOOK)
        return self.returncode

    def has_ended(self) -> bool:
        """Tell whether it has ended; its children may live on."""
        return self.returncode is not None or self._reap(os.WNOHANG)

    def _reap(self, options: int) -> bool:
        pid, status, used = os.wait4(self.pid, options)
        if pid == 0:
            return False
        self.usage = _usage(used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        self.returncode = os.waitstatus_to_exitcode(status)
        return True


def _usage(used: resource.struct_rusage, own_peak_kb: int) -> Usage:
    peak = used.ru_maxrss if used.ru_maxrss > own_peak_kb else None
    return Usage((used.ru_utime + used.ru_stime) * 1000, peak, used.ru_inblock * BLOCK, used.ru_oublock * BLOCK)


class Ledger:
    """CPU milliseconds of ended children by program name, shared by all steps of a run. Thread-safe."""

    def __init__(self) -> None:
        self.cpu_ms: dict[str, float] = {}
        self._lock = threading.Lock()

    def book(self, program: str, usage: Usage) -> None:
        """Book what an ended child used."""
        with self._lock:
            self.cpu_ms[program] = self.cpu_ms.get(program, 0.0) + usage.cpu_ms
