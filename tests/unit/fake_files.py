# SPDX-License-Identifier: Apache-2.0
"""Faults of a disk, made inside pyfakefs, so that they are met by whatever call product code writes with.

pyfakefs knows a disk's size and, for users other than root, modes; a file system that is mounted read-only it does not
know. Every change of its tree passes one of three functions, which is where that is added.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from pyfakefs import fake_filesystem
from pyfakefs.fake_filesystem import FakeFilesystem

import cc_sammy
from cc_sammy import config

config.load({})  # jsonschema reads files of its own at its first use, which are on no fake disk


def new_disk(fs: FakeFilesystem, size: int = 1 << 40) -> None:
    """Empty the disk; what our own package reads of itself is on it."""
    fs.reset(size)
    fs.add_real_file(os.path.join(os.path.dirname(cc_sammy.__file__), "contract", "schema.json"))


def lay_out(fs: FakeFilesystem, files: Mapping[str, str], mode: int = 0o644) -> None:
    """Put the files there, with their directories; one that is there gets the text."""
    for path, text in files.items():
        if fs.exists(path):
            fs.get_object(path).set_contents(text)
        else:
            fs.create_file(path, contents=text, st_mode=stat.S_IFREG | mode)


def calls_of_the_kernel(fs: FakeFilesystem, patch: pytest.MonkeyPatch) -> None:
    """Add what pyfakefs hands on to the real system: posix_fallocate and statvfs, both by the fake disk's size."""

    def posix_fallocate(descriptor: int, offset: int, length: int) -> None:
        opened: Any = fs.get_open_file(descriptor).get_object()
        opened.set_large_file_size(offset + length)

    def statvfs(path: str) -> Any:
        usage: Any = fs.get_disk_usage(path)
        return SimpleNamespace(f_frsize=1, f_bavail=usage.free)

    patch.setattr(os, "posix_fallocate", posix_fallocate)
    patch.setattr(os, "statvfs", statvfs)


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

    def require_writable(path: str) -> None:
        if f"{path}/".startswith(f"{folder.rstrip('/')}/"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def refusing(change: Any) -> Any:
        def changed(one: Any, *arguments: Any, **more: Any) -> Any:
            require_writable(one.path)
            return change(one, *arguments, **more)

        return changed

    make = FakeFilesystem.makedirs

    def makedirs(fs: FakeFilesystem, path: str, *arguments: Any, **more: Any) -> None:
        if not fs.isdir(path):  # makedirs of pyfakefs 4.6 says ENOENT for any error but EACCES
            require_writable(path)
        make(fs, path, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        directory, file = fake_filesystem.FakeDirectory, fake_filesystem.FakeFile
        patch.setattr(FakeFilesystem, "makedirs", makedirs)
        for kind, name in ((directory, "add_entry"), (directory, "remove_entry"), (file, "set_contents")):
            patch.setattr(kind, name, refusing(getattr(kind, name)))
        yield
