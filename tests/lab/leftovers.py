# SPDX-License-Identifier: Apache-2.0
"""What a laboratory left behind on the host: seen after a run, and taken away when its process was killed.

Everything the laboratory makes outside its cache is named sammylab-<process id>-..., so its owner is known.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

from tests.lab.cgroup import Cgroup, mount_point
from tests.lab.shell import CACHE, run, say, unmount

NAME = re.compile(r"^sammylab-(\d+)-")
DIRECTORIES = (CACHE / "machines", CACHE / "sources")


def found(pid: int) -> list[str]:
    """Return what the process with this number still has on the host, in words; empty when all is clean."""
    prefix = f"sammylab-{pid}-"
    things = [f"network namespace {name}" for name in _namespaces() if name.startswith(prefix)]
    things += [f"cgroup {name}" for name in _names(mount_point()) if name.startswith(prefix)]
    things += [f"mount {path}" for path in _mounts() if f"/{prefix}" in path]
    for directory in DIRECTORIES:
        things += [f"directory {directory / name}" for name in _names(directory) if name.startswith(prefix)]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if prefix.encode() in words:
                things.append(f"process {process.name}: {words.replace(bytes(1), b' ').decode(errors='replace')[:80]}")
    return things


def sweep() -> None:
    """Take away what laboratories left whose process is gone (killed before it could clean up)."""
    for name in sorted({*_namespaces(), *_names(mount_point()), *_names(DIRECTORIES[0]), *_names(DIRECTORIES[1])}):
        owner = NAME.match(name)
        if owner and not Path(f"/proc/{owner.group(1)}").exists():
            say(f"taking away what a killed laboratory left: {name}")
            _take_away(name)


def _take_away(name: str) -> None:
    cgroup = Cgroup(name)
    cgroup.kill()
    cgroup.remove()
    if name in _namespaces():
        for pid in run(["ip", "netns", "pids", name], check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "del", name], check=False)
    for directory in DIRECTORIES:
        unmount(directory / name / "root", then_remove=directory / name)


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.is_dir() else []


def _namespaces() -> list[str]:
    return _names(Path("/run/netns"))


def _mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
