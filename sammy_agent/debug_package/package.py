# SPDX-License-Identifier: Apache-2.0
"""Makes the archive: member by member, scrubbed, within a budget, and looked through once more before it is given out.

A tar of which the end is missing still opens, so what tells most comes first. `results.json` says of every member
whether it is there and, if not or not whole, why; `SHA256SUMS` is in sha256sum's own format.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from sammy_agent import __version__, config, files
from sammy_agent.debug_package.collect import Piece, pieces
from sammy_agent.debug_package.members import MEMBERS, Member
from sammy_agent.debug_package.scrub import Scrubber
from sammy_agent.errors import AgentError
from sammy_agent.places import Places

FOLDER = "sammy-debug"
SECONDS = 60.0  # for all of it
EACH = 15.0  # for one program
BYTES = 64 * 1024 * 1024  # of text, before it is packed
WINDOW, OVERLAP = 1024 * 1024, 64 * 1024  # of the last look; the overlap is more than a secret with its escapes


class LeakFound(AgentError):
    """A known secret stood in the finished archive: it was not given out."""

    code = "debug-package-leak"


@dataclass(frozen=True)
class Result:
    """What became of one file of the package."""

    name: str
    bytes: int
    note: str


@dataclass
class Package:
    """A finished package."""

    path: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0


def known_secrets(places: Places) -> list[str]:
    """Return every secret that this node's files hold, for the scrubber to know."""
    paths = [places.token, places.tls_key]
    with contextlib.suppress(AgentError, OSError):
        loaded = config.load(places)
        if loaded is not None and loaded.token_file is not None:
            paths.append(loaded.token_file)
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(files.read(path) or "")
    return found


def make(
    path: str,
    places: Places,
    *,
    members: Sequence[Member] = MEMBERS,
    seconds: float = SECONDS,
    most: int = BYTES,
    say: Callable[[str], None] = lambda words: None,
) -> Package:
    """Make the package at `path`, readable by its maker alone.

    :param seconds: for collecting; what does not fit in is named in the results.
    :param most: bytes of text, before it is packed.
    :param say: told what is done at the moment.
    :raises LeakFound: a known secret got past the scrubber; nothing is left at `path`.
    :raises AgentError: it cannot be written.
    """
    began = time.monotonic()
    package, scrubber = Package(path), Scrubber(known_secrets(places))
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE), "w+b") as file:
            with tarfile.open(fileobj=file, mode="w|gz") as archive:
                _fill(_Archive(archive, package, most), members, scrubber, places.root, until=began + seconds, say=say)
            say("looking it through")
            _look_through(file, scrubber)
            os.fsync(file.fileno())
            package.bytes = os.fstat(file.fileno()).st_size
        os.replace(beside, path)
    except OSError as error:
        raise AgentError(f"{path} cannot be written: {error.strerror}", "Name another place with --output") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
    package.seconds = round(time.monotonic() - began, 1)
    return package


def _fill(
    archive: _Archive,
    members: Sequence[Member],
    scrubber: Scrubber,
    root: str,
    *,
    until: float,
    say: Callable[[str], None],
) -> None:
    archive.add(Piece("README.txt", README))
    for member in members:
        left = until - time.monotonic()
        if left <= 0:
            archive.leave_out(member.name, "no time was left for it")
            continue
        say(member.name)
        for piece in pieces(member, root, min(EACH, left)):
            archive.add(Piece(piece.name, scrubber.scrub(piece.text), scrubber.scrub(piece.note)))
    archive.close()


class _Archive:
    """The tar being written, and its account.

    :param most: bytes of text it takes; a file for which no room is left is named in the results.
    """

    def __init__(self, archive: tarfile.TarFile, package: Package, most: int) -> None:
        self._archive, self._package, self._left = archive, package, most
        self._digests: list[tuple[str, str]] = []

    def add(self, piece: Piece) -> None:
        data = piece.text.encode("utf-8", errors="replace")
        if not data and piece.note:
            self.leave_out(piece.name, piece.note)
        elif len(data) > self._left:
            self.leave_out(piece.name, "no room was left for it")
        else:
            self._left -= len(data)
            self._write(piece.name, data)
            self._package.results.append(Result(piece.name, len(data), piece.note))

    def leave_out(self, name: str, why: str) -> None:
        self._package.results.append(Result(name, 0, why))

    def close(self) -> None:
        """Write what is told of the files themselves."""
        results = {"agent_version": __version__, "members": [asdict(result) for result in self._package.results]}
        self._write("results.json", json.dumps(results, indent=1).encode() + b"\n")
        self._write("SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in self._digests).encode())

    def _write(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(f"{FOLDER}/{name}")
        info.size, info.mtime, info.mode = len(data), int(time.time()), files.PRIVATE
        self._archive.addfile(info, io.BytesIO(data))
        self._digests.append((name, hashlib.sha256(data).hexdigest()))


def _look_through(file: io.BufferedRandom, scrubber: Scrubber) -> None:
    """Search the finished archive for known secrets. LeakFound when there is one."""
    file.flush()
    file.seek(0)
    before = ""
    with gzip.GzipFile(fileobj=file, mode="rb") as plain:
        while data := plain.read(WINDOW):
            text = before + data.decode("utf-8", errors="replace")
            if scrubber.finds(text):
                raise LeakFound(
                    "a secret of this node stood in the finished debug package; it was thrown away",
                    "This is a bug; please report it without the package",
                )
            before = text[-OVERLAP:]


README = """What this node knew of itself when `sammy debug-package` ran.
Begin with provisioning-timings.txt and status.txt.

results.json says of each file whether it is whole and, if not, why. `sha256sum -c SHA256SUMS` checks the files.
Secrets are replaced by [scrubbed]: those this node knows in every writing, and what looks like one.
"""
