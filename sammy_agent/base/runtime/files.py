# SPDX-License-Identifier: Apache-2.0
"""Files that survive a power cut whole: their directory is fsynced too; secrets are never readable by others."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from cc_sammy.common.files import PRIVATE, PUBLIC, remove, replace
from cc_sammy.common.files import read_text as read

__all__ = ["PRIVATE", "PUBLIC", "make_private", "read", "remove", "write"]


def write(path: str, content: str | bytes, *, mode: int = PUBLIC) -> None:
    """Replace a file atomically and durably, making its directory; OSError when that cannot be done."""
    replace(path, content.encode() if isinstance(content, str) else content, mode=mode, sync=True)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(path: str) -> None:
    """Make an empty file that only root reads, if there is none; what SQLite lays beside it gets the same mode.

    Not by umask: that is the whole process's, and two threads that set it and put it back can leave it set. A file that
    is there is not opened: closing it again would drop the locks that SQLite holds on it in this process (POSIX).
    """
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE))
