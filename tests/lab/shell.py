# SPDX-License-Identifier: Apache-2.0
"""What every part of the laboratory needs of the host: commands, progress, and a cache that is whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cc_sammy.errors import SammyError

CACHE = Path(__file__).resolve().parents[2] / "build" / "lab"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BEGAN = time.monotonic()


class LabError(SammyError):
    """The laboratory itself failed, not what is tried in it."""


def say(text: str) -> None:
    """Print one line of progress to stderr, with the seconds since the laboratory was loaded."""
    print(f"lab {time.monotonic() - _BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    input: str | None = None,
    timeout: float = 120.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own; the group is killed at the deadline.

    :param timeout: seconds.
    :raises LabError: no such program, the deadline passed, or (with `check`) a status other than 0.
    """
    words = [str(word) for word in argv]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
        )
    except OSError as error:
        raise LabError(
            f"could not run {words[0]}: {error.strerror}", "Install the Debian package that has it"
        ) from error
    try:
        out, err = process.communicate(input, timeout=timeout)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        tail = (out + err)[-2000:]
        raise LabError(f"{' '.join(words)} did not end within {timeout:.0f} s; it said: {tail}") from error
    if check and process.returncode != 0:
        raise LabError(f"{' '.join(words)} ended with status {process.returncode}: {(out + err)[-3000:]}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for a condition.

    :raises LabError: naming `what` when it has not come within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


def unmount(path: Path, *, then_remove: Path) -> None:
    """Unmount a path if it is mounted, then remove a directory that holds it. Never removes through a mount.

    :raises LabError: it stays busy.
    """

    def gone() -> bool:  # busy for a moment: a killed machine's mount namespace ends after its last process
        return not os.path.ismount(path) or run(["umount", path], check=False).returncode == 0

    wait_until(gone, f"{path} can be unmounted", 30)
    shutil.rmtree(then_remove, ignore_errors=True)


def digest(*parts: str | Path) -> str:
    """Return 12 hex digits for texts and the contents of files."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()[:12]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock among all processes that use the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, key: str, build: Callable[[Path], None], *, keep_days: float = 14.0) -> Path:
    """Return the directory `name-key` of the cache; `build` fills it the first time.

    It is filled beside and renamed at the end: an interrupted build leaves nothing that looks whole. A new one sends
    away those of the same name that nobody has asked for in `keep_days`.
    """
    directory = CACHE / f"{name}-{key}"
    with locked(name):
        if not directory.exists():
            partial = CACHE / f".{name}-partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                build(partial)
                partial.rename(directory)
                _forget_old(name, keep_days)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(directory)
    return directory


def _forget_old(name: str, days: float) -> None:
    for directory in CACHE.glob(f"{name}-*"):
        if directory.stat().st_mtime < time.time() - days * 86400:
            shutil.rmtree(directory, ignore_errors=True)
