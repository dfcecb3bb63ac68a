# SPDX-License-Identifier: Apache-2.0
"""A cgroup for each machine, so that all its processes can be killed in one stroke and two machines never share one.

Left as nspawn does it, they would all sit in /payload, and the next boot would fail with EBUSY.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.lab.shell import LabError, wait_until


def mount_point() -> Path:
    """Return where the host has cgroup version 2 (alone or beside version 1).

    :raises LabError: it is nowhere.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 ") and before.split()[3] == "/":
            return Path(before.split()[4])
    raise LabError("cgroup version 2 is mounted nowhere", "mount -t cgroup2 none /sys/fs/cgroup/unified")


class Cgroup:
    """One directory of the version 2 hierarchy, with all below it."""

    def __init__(self, name: str) -> None:
        self.path = mount_point() / name

    def make(self) -> None:
        """Make it."""
        self.path.mkdir(exist_ok=True)

    def of_init(self) -> Path:
        """Return the cgroup of the machine's PID 1, once systemd has moved there."""
        return self.path / "payload/init.scope"

    def kill(self) -> None:
        """Send SIGKILL to every process in it at once."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove it with all below, when its last process is gone.

        :raises LabError: processes stay.
        """
        if not self.path.exists():
            return
        wait_until(lambda: "populated 0" in (self.path / "cgroup.events").read_text(), f"{self.path} is empty", 30)
        wait_until(self._removed, f"{self.path} can be removed", 30)

    def _removed(self) -> bool:
        for directory, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):  # EBUSY for a moment after the last process has ended
                os.rmdir(directory)
        return not self.path.exists()
