# SPDX-License-Identifier: Apache-2.0
"""Faults of a disk, made inside pyfakefs, so that they are met by whatever call product code writes with.

pyfakefs knows a disk's size and, for users other than root, modes; a file system that is mounted read-only it does not
know. Every change of its tree passes one of three functions, which is where that is added.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pyfakefs import fake_filesystem
from pyfakefs.fake_filesystem import FakeFilesystem


def lay_out(fs: FakeFilesystem, files: Mapping[str, str]) -> None:
    """Put the files there, with their directories."""
    for path, text in files.items():
        fs.create_file(path, contents=text)


def contents(fs: FakeFilesystem, folder: str = "/") -> dict[str, str]:
    """Return the text of every file below the folder."""
    paths = (os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
    return {path: str(fs.get_object(path).contents) for path in paths if not os.path.islink(path)}


@contextlib.contextmanager
def disk_full(fs: FakeFilesystem) -> Iterator[None]:
    """Have no byte left on the disk."""
    total, used, _ = fs.get_disk_usage()
    fs.set_disk_usage(used)
    try:
        yield
    finally:
        fs.set_disk_usage(total)


@contextlib.contextmanager
def read_only(folder: str) -> Iterator[None]:
    """Have the file system at the folder mounted read-only (EROFS), for root too."""

    def refusing(change: Any) -> Any:
        def changed(one: Any, *arguments: Any, **more: Any) -> Any:
            if f"{one.path}/".startswith(f"{folder.rstrip('/')}/"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), one.path)
            return change(one, *arguments, **more)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        directory, file = fake_filesystem.FakeDirectory, fake_filesystem.FakeFile
        for kind, name in ((directory, "add_entry"), (directory, "remove_entry"), (file, "set_contents")):
            patch.setattr(kind, name, refusing(getattr(kind, name)))
        yield
