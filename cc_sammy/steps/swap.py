# SPDX-License-Identifier: Apache-2.0
"""A swap file for machines with little memory: made, used now and at later boots, and taken away when unwanted.

Its unit, not a line of /etc/fstab: that file is the owner's, and a wrong line in it stops a boot. The step is part of
a run only where `swap.size_mb` asks for a file or one of ours is there; whether it is in use stands in /proc/swaps,
so that a later boot asks no process.
"""

from __future__ import annotations

import errno
import os
import stat

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import systemd

FILE = "/swapfile"
NAME = "swapfile.swap"  # systemd demands the name that follows from the path
UNIT = f"/etc/systemd/system/{NAME}"
WANTED_BY = f"/etc/systemd/system/swap.target.wants/{NAME}"
MARK = "# Written by cloud-init-sammy; sammy.swap.size_mb changes it, 0 removes it and the file.\n"
MIB = 1 << 20
KEPT_FREE_MB = 512  # of the disk: what the other steps unpack must fit too


def is_concerned(config: Config) -> bool:
    """Tell whether a run has anything to do with swap: one is wanted, or one of ours is there."""
    return config.swap.size_mb > 0 or _is_ours()


def satisfied(host: Host, config: Config) -> str | None:
    """The file is in use with its size and will be at the next boot, or there is none and none is wanted."""
    size_mb = config.swap.size_mb
    if size_mb == 0:
        return None if _is_ours() else "swap.size_mb is 0"
    as_wanted = files.read_text(UNIT) == unit() and os.path.exists(WANTED_BY) and _has_size(size_mb) and _is_used()
    return f"{size_mb} MB of swap are in use" if as_wanted else None


def unit() -> str:
    """Return the unit's text."""
    return f"""{MARK}[Unit]
Description=Swap file
Documentation=man:sammy(1)

[Swap]
What={FILE}

[Install]
WantedBy=swap.target
"""


def run(host: Host, config: Config) -> None:
    """Make the file and use it, or stop using it and remove it."""
    if config.swap.size_mb == 0:
        _remove(host)
        return
    if os.path.lexists(FILE) and not _is_ours():
        raise StepFailed(f"there is a {FILE} that is not ours; it is left alone", "Remove it, or sammy.swap.size_mb: 0")
    # Before the file: a power cut in between leaves one that is known to be ours.
    if files.write_text(UNIT, unit(), sync=True):
        host.run(["systemctl", "daemon-reload"])
    if not (_has_size(config.swap.size_mb) and _is_used()):
        _stop(host)
        make_file(host, config.swap.size_mb)
    systemd.enable_and_start(host, NAME)


def make_file(host: Host, size_mb: int) -> None:
    """Make the file with all its blocks (swap takes no holes) beside its place, then put it there, whole or not.

    :raises StepFailed: the disk has no room for it.
    """
    beside = f"{FILE}.new"
    files.remove(beside)
    files.remove(FILE)
    disk = os.statvfs(os.path.dirname(FILE))
    free_mb = disk.f_bavail * disk.f_frsize // MIB
    if free_mb < size_mb + KEPT_FREE_MB:
        raise _no_room(size_mb, f"{free_mb} MB are free, {KEPT_FREE_MB} of them are kept")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.chmod(descriptor, 0o600)
            os.posix_fallocate(descriptor, 0, size_mb * MIB)
        finally:
            os.close(descriptor)
        host.run(["mkswap", beside], timeout=60)
        os.rename(beside, FILE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(size_mb, error.strerror or "") from error
        raise
    finally:
        files.remove(beside)


def _no_room(size_mb: int, why: str) -> StepFailed:
    return StepFailed(f"the disk has no room for {size_mb} MB of swap: {why}", "Make room, or lower sammy.swap.size_mb")


def _remove(host: Host) -> None:
    if not _is_ours():
        return
    _stop(host)
    host.run(["systemctl", "disable", "--quiet", NAME])
    files.remove(FILE)
    files.remove(UNIT)  # last: it says that the file is ours
    host.run(["systemctl", "daemon-reload"])


def _stop(host: Host) -> None:
    """Stop using it; the kernel needs memory for what lies in it."""
    if not _is_used():
        return
    host.run(["systemctl", "stop", NAME], check=False, timeout=300)
    if _is_used():
        raise StepFailed(
            f"{FILE} is still in use: memory has no room for what lies in it", "Stop what needs the memory"
        )


def _is_ours() -> bool:
    return (files.read_text(UNIT) or "").startswith(MARK)


def _is_used() -> bool:
    return any(line.split()[:1] == [FILE] for line in (files.read_text("/proc/swaps") or "").splitlines())


def _has_size(size_mb: int) -> bool:
    try:
        status = os.lstat(FILE)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_mb * MIB and stat.S_IMODE(status.st_mode) == 0o600


STEP = Step("swap", "swap", satisfied, run, after=("firewall",))
