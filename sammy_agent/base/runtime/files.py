# SPDX-License-Identifier: Apache-2.0
"""Files that survive a power cut whole: written beside, fsynced, renamed; secrets are never readable by others."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading

PRIVATE = 0o600
PUBLIC = 0o644


def write(path: str, content: str | bytes, *, mode: int = PUBLIC) -> None:
    """Replace a file atomically and durably, making its directory; OSError when that cannot be done."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    beside = f"{path}.{os.getpid()}.{threading.get_ident()}.new"
    try:
        # The mode is right from the first byte on: O_EXCL and O_NOFOLLOW leave nobody a file to have open already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            os.chmod(file.fileno(), mode)  # fchmod(2) by a name that a fake file system knows too
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


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


def read(path: str) -> str | None:
    """Return a file's text, None when there is none; other OSErrors are the caller's."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove(path: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
