# SPDX-License-Identifier: Apache-2.0
"""Makes the archive: member by member, scrubbed, within a budget, and looked through once more before it is given out.

Nothing is held whole: what a source says goes through the scrubber in pieces to a file without a name, and from there
into the archive. What tells most comes first, since an archive that is cut still opens. `results.json` says of every
member whether it is there and, if not or not whole, why; `manifest.json` and `SHA256SUMS` hold the sums.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.debug_package import archive
from sammy_agent.diagnostics.debug_package.archive import Archive
from sammy_agent.diagnostics.debug_package.members import MEMBERS, Member
from sammy_agent.diagnostics.debug_package.sources import Source, sources
from sammy_agent.diagnostics.redaction import pseudonyms
from sammy_agent.diagnostics.redaction.node_secrets import known_secrets
from sammy_agent.diagnostics.redaction.redactor import Scrubber

SECONDS = 40.0  # for collecting; packing is part of it, the last look is not
EACH = 12.0  # for one program
BYTES = 64 * 1024 * 1024  # of text, before it is packed
IN_MEMORY = 256 * 1024  # of a file's text; what is longer waits on the disk, without a name
OVERLAP = 16 * 1024  # of the last look; more than a secret with its escapes


class LeakFound(AgentError):
    """A known secret stood in the finished archive: it was not given out."""

    code = Code.DEBUG_PACKAGE_LEAK


@dataclass(frozen=True)
class Result:
    """What became of one file of the package; `status` is whole, partial, empty or missing."""

    name: str
    bytes: int
    note: str
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """Say in one word how much of it is there."""
        if self.bytes:
            return "partial" if self.note else "whole"
        return "missing" if self.note else "empty"


@dataclass
class Package:
    """A finished package."""

    path: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0


def make(
    path: str,
    paths: Paths,
    *,
    members: Sequence[Member] = MEMBERS,
    seconds: float = SECONDS,
    most: int = BYTES,
    most_packed: int | None = None,
    with_pseudonyms: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Package:
    """Make the package at `path`, readable by its maker alone.

    :param seconds: for collecting; what does not fit in is named in the results.
    :param most: bytes of text, before it is packed.
    :param most_packed: bytes of the archive itself; of each log the share is then smaller.
    :param with_pseudonyms: put stand-ins in the place of hosts and addresses.
    :param say: told what is done at the moment.
    :raises LeakFound: a known secret got past the scrubber; nothing is left at `path`.
    :raises AgentError: it cannot be written.
    """
    began, wall = time.monotonic(), time.time()
    package = Package(path)
    after = pseudonyms.of(paths).replace if with_pseudonyms else lambda line: line
    scrubber = Scrubber(known_secrets(paths), after)
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE), "w+b") as file:
            filling = _Filling(Archive(file, most_packed), package, scrubber, paths, most)
            filling.limit_share = min(1.0, most_packed / (16 * 1024 * 1024)) if most_packed else 1.0
            filling.fill(members, until=began + seconds, say=say)
            filling.close(_about(paths, wall, scrubber, with_pseudonyms))
            say("looking it through")
            look_through(beside, scrubber)
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


def _about(paths: Paths, began: float, scrubber: Scrubber, with_pseudonyms: bool) -> dict[str, Any]:
    """Return what the manifest says of the package itself."""
    try:  # not by `config`: a node without a control plane has a name too, and a damaged file is no reason to stop
        node = str(json.loads(files.read(paths.config) or "{}").get("node_id") or "")
    except (ValueError, AttributeError, OSError):
        node = ""
    instance = "" if with_pseudonyms else (files.read(paths.instance) or "").strip()
    return {
        "format": "sammy-debug/1",
        "nodeId": scrubber.scrub(node) or None,
        "agentVersion": __version__,
        "instanceId": instance or None,
        "startedAt": iso(began),
        "endedAt": iso(time.time()),
        "bootSeconds": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        "pseudonyms": with_pseudonyms,
    }


class _Filling:
    """The package while it is filled, and its account."""

    def __init__(self, target: Archive, package: Package, scrubber: Scrubber, paths: Paths, most: int) -> None:
        self._archive, self._package, self._scrubber, self._paths = target, package, scrubber, paths
        self._left = most
        self._folder = os.path.dirname(package.path) or "."
        self.limit_share = 1.0

    def fill(self, members: Sequence[Member], *, until: float, say: Callable[[str], None]) -> None:
        """Take one member after the other until the time is over."""
        self._write("README.txt", README.encode())
        for member in members:
            left = until - time.monotonic()
            if left <= 0:
                self._package.results.append(Result(member.name, 0, "no time was left for it"))
                continue
            say(member.name)
            for source in sources(member, self._paths, min(EACH, left), self.limit_share):
                began = time.monotonic()
                with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=self._folder) as text:
                    size, told = self._scrubbed(source, text)
                    note = self._scrubber.scrub(told)
                    text.seek(0)
                    result = self._take(self._scrubber.scrub(source.name), text, size, note)
                spent = round(time.monotonic() - began, 3)
                self._package.results.append(Result(result.name, result.bytes, result.note, spent))

    def _scrubbed(self, source: Source, into: IO[bytes]) -> tuple[int, str]:
        """Write a source's text, scrubbed; return its size and what there is to say of it."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        stream = self._scrubber.stream()
        size = 0
        for data in source.read():
            size += into.write(stream.feed(decoder.decode(data)).encode("utf-8", errors="replace"))
        size += into.write((stream.feed(decoder.decode(b"", True)) + stream.end()).encode("utf-8", errors="replace"))
        return size, "; ".join(source.notes)

    def _take(self, name: str, text: IO[bytes], size: int, note: str) -> Result:
        if not size and note:
            return Result(name, 0, note)
        if size > self._left or not self._archive.add(name, text, size):
            return Result(name, 0, "no room was left for it")
        self._left -= size
        return Result(name, size, note)

    def close(self, about: dict[str, Any]) -> None:
        """Write what is told of the files themselves, and the end."""
        results = [{**asdict(result), "status": result.status} for result in self._package.results]
        self._write("results.json", _json({"agent_version": __version__, "members": results}))
        sums = [{"name": name, "bytes": size, "sha256": digest} for name, size, digest in self._archive.sums]
        self._write("manifest.json", _json({**about, "members": sums}))
        self._write("SHA256SUMS", "".join(f"{digest}  {name}\n" for name, _, digest in self._archive.sums).encode())
        self._archive.close()

    def _write(self, name: str, data: bytes) -> None:
        self._archive.add(name, io.BytesIO(data), len(data), always=True)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def look_through(path: str, scrubber: Scrubber) -> None:
    """Search a finished archive for known secrets.

    :raises LeakFound: there is one.
    """
    before = ""
    for data in archive.decompress(path):
        text = before + data.decode("utf-8", errors="replace")
        if scrubber.finds(text):
            raise LeakFound(
                "a secret of this node stood in the finished debug package; it was thrown away",
                "This is a bug; please report it without the package",
            )
        before = text[-OVERLAP:]


README = """What this node knew of itself when `sammy debug-package` ran.
Begin with provisioning-timings.txt and status.txt.

results.json says of each file whether it is whole and, if not, why. manifest.json names the node, the times and each
file's SHA-256; `sha256sum -c SHA256SUMS` checks them. Long logs have their ends.
Secrets are replaced by [scrubbed]: those this node knows in every writing, and what looks like one.
"""
