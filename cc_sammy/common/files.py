# SPDX-License-Identifier: Apache-2.0
"""Files read and written whole: missing is None, a new content comes by rename, a mode holds from the first byte on.

Everything else about files (exists, glob, stat) is the standard library's, called directly.
"""

from __future__ import annotations

import contextlib
import os
import threading

PRIVATE, PUBLIC = 0o600, 0o644


def read_text(path: str) -> str | None:
    """Return a file's text, None when there is no such file; other OSErrors are the caller's."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_text(path: str, text: str, *, mode: int = PUBLIC, sync: bool = False) -> bool:
    """Replace a file atomically unless it has this text and mode already; return whether it changed."""
    if read_text(path) == text and os.stat(path).st_mode & 0o777 == mode:
        return False
    replace(path, text.encode(), mode=mode, sync=sync)
    return True


def replace(path: str, content: bytes, *, mode: int = PUBLIC, sync: bool = False) -> None:
    """Replace a file atomically, making its directories; on an OSError the old file stays and nothing else is left.

    :param sync: have the content on the disk before the rename, so that a power cut leaves the old file or the new.
    """
    temporary = f"{path}.{os.getpid()}.{threading.get_ident()}.new"
    try:
        descriptor = _create(temporary, mode)
        with open(descriptor, "wb") as file:
            os.chmod(descriptor, mode)  # whatever the umask is; not fchmod, which pyfakefs lets through to the system
            file.write(content)
            if sync:
                file.flush()
                os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _create(path: str, mode: int) -> int:
    """Return a descriptor of a new file; make its directories, remove what a power cut left under its name."""
    while True:
        try:
            # O_EXCL: nobody has the file open already, and a link in its place is not followed (open(2)).
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            os.unlink(path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)


def remove(path: str) -> bool:
    """Remove a file; return whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
