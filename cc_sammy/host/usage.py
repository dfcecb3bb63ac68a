# SPDX-License-Identifier: Apache-2.0
"""What commands cost, from the kernel's account of each ended child (wait4), per step and per program.

RUSAGE_CHILDREN knows only the sum over all steps, and a peak that cannot be assigned to one. Bytes come from wait4 too:
its blocks are the counters of /proc/<pid>/io (read_bytes, write_bytes), without a further call and without a race with
the child's end. What systemd, dockerd or dpkg's daemons do on a step's behalf is not a child of ours and not included.
"""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from typing import NamedTuple

BLOCK_BYTES = 512  # of ru_inblock and ru_oublock, whatever the disk's block size is (getrusage(2))
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.0005, 0.05  # between two checks of a child that must end by a deadline


class ResourceUsage(NamedTuple):
    """What ended commands used, including the children they waited for.

    :param peak_kb: the largest resident size of one of them, in KiB; None when none was larger than this process:
        ru_maxrss is inherited across exec, so a peak below ours cannot be measured.
    """

    cpu_ms: float = 0.0
    peak_kb: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0

    def __add__(self, other: ResourceUsage) -> ResourceUsage:  # type: ignore[override]  # not a tuple's
        peaks = [peak for peak in (self.peak_kb, other.peak_kb) if peak is not None]
        return ResourceUsage(
            self.cpu_ms + other.cpu_ms,
            max(peaks, default=None),
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
        )


class MeasuredProcess(subprocess.Popen[bytes]):
    """A command that is reaped with wait4, which reports what it used."""

    usage: ResourceUsage | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end as Popen does. TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = MIN_POLL_SECONDS
        while self.returncode is None and not self._reap(os.WNOHANG if end is not None else 0):
            left = 0.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(min(pause, left))
            pause = min(pause * 2, MAX_POLL_SECONDS)
        return self.returncode

    def has_ended(self) -> bool:
        """Return whether it has ended; its children may still run."""
        return self.returncode is not None or self._reap(os.WNOHANG)

    def _reap(self, options: int) -> bool:
        pid, status, used = os.wait4(self.pid, options)
        if pid == 0:
            return False
        self.usage = _usage(used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        self.returncode = os.waitstatus_to_exitcode(status)
        return True


def _usage(used: resource.struct_rusage, own_peak_kb: int) -> ResourceUsage:
    peak = used.ru_maxrss if used.ru_maxrss > own_peak_kb else None
    return ResourceUsage(
        (used.ru_utime + used.ru_stime) * 1000, peak, used.ru_inblock * BLOCK_BYTES, used.ru_oublock * BLOCK_BYTES
    )


class UsageTotals:
    """CPU milliseconds of ended commands by program name, shared by all steps of a run. Thread-safe."""

    def __init__(self) -> None:
        self.cpu_ms: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, program: str, usage: ResourceUsage) -> None:
        """Add what an ended command used."""
        with self._lock:
            self.cpu_ms[program] = self.cpu_ms.get(program, 0.0) + usage.cpu_ms
