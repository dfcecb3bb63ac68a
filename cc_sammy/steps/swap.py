# SPDX-License-Identifier: Apache-2.0
"""A swap file for machines with little memory: created, used now and at later boots, and removed when unwanted.

It has a unit, not a line of /etc/fstab: that file is the owner's, and a wrong line in it stops a boot. The step is part
of a run only if `swap.size_mb` asks for a file or one of ours exists; whether it is in use is read from /proc/swaps, so
that a later boot runs no command.
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
RESERVED_MB = 512  # of the disk: what the other steps unpack must fit too


def is_applicable(config: Config) -> bool:
    """Return whether the step is part of a run: a swap file is wanted, or one of ours exists."""
    return config.swap.size_mb > 0 or _is_ours()


def already_done(host: Host, config: Config) -> str | None:
    """The file has its size, is in use and enabled, or there is none and none is wanted."""
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
    """Create the file and use it, or stop using it and remove it."""
    if config.swap.size_mb == 0:
        _remove(host)
        return
    if os.path.lexists(FILE) and not _is_ours():
        raise StepFailed(f"{FILE} exists and is not ours; it is left unchanged", "Remove it, or sammy.swap.size_mb: 0")
    # Before the file: after a power cut in between it is still known to be ours.
    if files.write_text(UNIT, unit(), sync=True):
        host.run(["systemctl", "daemon-reload"])
    if not (_has_size(config.swap.size_mb) and _is_used()):
        _stop(host)
        make_file(host, config.swap.size_mb)
    systemd.enable_and_start(host, NAME)


def make_file(host: Host, size_mb: int) -> None:
    """Create the file with all its blocks (swap allows no holes) under a temporary name, then rename it into place.

    :raises StepFailed: the disk has no room for it.
    """
    temporary = f"{FILE}.new"
    files.remove(temporary)
    files.remove(FILE)
    disk = os.statvfs(os.path.dirname(FILE))
    free_mb = disk.f_bavail * disk.f_frsize // MIB
    if free_mb < size_mb + RESERVED_MB:
        raise _no_room(size_mb, f"{free_mb} MB are free, {RESERVED_MB} of them are reserved")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.chmod(descriptor, 0o600)
            os.posix_fallocate(descriptor, 0, size_mb * MIB)
        finally:
            os.close(descriptor)
        host.run(["mkswap", temporary], timeout=60)
        os.rename(temporary, FILE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(size_mb, error.strerror or "") from error
        raise
    finally:
        files.remove(temporary)


def _no_room(size_mb: int, why: str) -> StepFailed:
    return StepFailed(f"the disk has no room for {size_mb} MB of swap: {why}", "Make room, or lower sammy.swap.size_mb")


def _remove(host: Host) -> None:
    if not _is_ours():
        return
    _stop(host)
    host.run(["systemctl", "disable", "--quiet", NAME])
    files.remove(FILE)
    files.remove(UNIT)  # last: it marks the file as ours
    host.run(["systemctl", "daemon-reload"])


def _stop(host: Host) -> None:
    """Stop using it; the kernel needs memory for what is swapped out."""
    if not _is_used():
        return
    host.run(["systemctl", "stop", NAME], check=False, timeout=300)
    if _is_used():
        raise StepFailed(
            f"{FILE} is still in use: there is not enough memory for its contents", "Stop what needs the memory"
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


STEP = Step("swap", "swap", already_done, run, after=("firewall",))
