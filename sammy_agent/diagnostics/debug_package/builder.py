# SPDX-License-Identifier: Apache-2.0
"""Builds the archive member by member, redacted and within a budget, and verifies it before it is handed out.

Nothing is held in memory whole: each source streams through the redactor into an unnamed file, and from there into the
archive. The most useful members come first, since a truncated archive can still be opened. `results.json` says of every
member whether it is whole and, if not, why; `manifest.json` and `SHA256SUMS` have the checksums.
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
from sammy_agent.diagnostics.debug_package.sources import MemberSource, sources
from sammy_agent.diagnostics.redaction import pseudonyms
from sammy_agent.diagnostics.redaction.node_secrets import collect_secrets
from sammy_agent.diagnostics.redaction.redactor import Redactor

SECONDS = 40.0  # for collecting and compressing; verifying is not part of it
PROGRAM_SECONDS = 12.0  # for one program
MAX_TEXT_BYTES = 64 * 1024 * 1024  # of text, before it is packed
MAX_MEMORY_BYTES = 256 * 1024  # of a file's text; what is longer waits on the disk, without a name
OVERLAP = 16 * 1024  # between two windows of the verification; longer than a secret with its escapes


class LeakFound(AgentError):
    """The finished archive contained a known secret: it was deleted."""

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


def build(
    path: str,
    paths: Paths,
    *,
    members: Sequence[Member] = MEMBERS,
    seconds: float = SECONDS,
    most: int = MAX_TEXT_BYTES,
    most_packed: int | None = None,
    with_pseudonyms: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Package:
    """Make the package at `path`, readable by its maker alone.

    :param seconds: for collecting; what does not fit in is named in the results.
    :param most: bytes of text, before it is packed.
    :param most_packed: bytes of the archive itself; of each log the share is then smaller.
    :param with_pseudonyms: replace hosts and addresses by pseudonyms.
    :param say: called with what is being done.
    :raises LeakFound: a known secret got past the redactor; nothing is left at `path`.
    :raises AgentError: it cannot be written.
    """
    began, wall = time.monotonic(), time.time()
    package = Package(path)
    after = pseudonyms.for_host(paths).replace if with_pseudonyms else lambda line: line
    redactor = Redactor(collect_secrets(paths), after)
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE), "w+b") as file:
            builder = _Builder(Archive(file, most_packed), package, redactor, paths, most)
            builder.limit_share = min(1.0, most_packed / (16 * 1024 * 1024)) if most_packed else 1.0
            builder.fill(members, until=began + seconds, say=say)
            builder.close(_manifest_header(paths, wall, redactor, with_pseudonyms))
            say("verifying")
            verify_no_secrets(beside, redactor)
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


def _manifest_header(paths: Paths, began: float, redactor: Redactor, with_pseudonyms: bool) -> dict[str, Any]:
    """Return what the manifest says about the package itself."""
    try:  # not by `config`: a node without a control plane has a name too, and a damaged file is no reason to stop
        node = str(json.loads(files.read(paths.config) or "{}").get("node_id") or "")
    except (ValueError, AttributeError, OSError):
        node = ""
    instance = "" if with_pseudonyms else (files.read(paths.instance) or "").strip()
    return {
        "format": "sammy-debug/1",
        "nodeId": redactor.redact(node) or None,
        "agentVersion": __version__,
        "instanceId": instance or None,
        "startedAt": iso(began),
        "endedAt": iso(time.time()),
        "bootSeconds": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        "pseudonyms": with_pseudonyms,
    }


class _Builder:
    """The package being built, and its results."""

    def __init__(self, target: Archive, package: Package, redactor: Redactor, paths: Paths, most: int) -> None:
        self._archive, self._package, self._redactor, self._paths = target, package, redactor, paths
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
            for source in sources(member, self._paths, min(PROGRAM_SECONDS, left), self.limit_share):
                began = time.monotonic()
                with tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES, dir=self._folder) as text:
                    size, told = self._redacted(source, text)
                    note = self._redactor.redact(told)
                    text.seek(0)
                    result = self._take(self._redactor.redact(source.name), text, size, note)
                spent = round(time.monotonic() - began, 3)
                self._package.results.append(Result(result.name, result.bytes, result.note, spent))

    def _redacted(self, source: MemberSource, into: IO[bytes]) -> tuple[int, str]:
        """Write a source's text, redacted; return its size and its notes."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        stream = self._redactor.stream()
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
        """Write results, manifest and checksums, and close the archive."""
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


def verify_no_secrets(path: str, redactor: Redactor) -> None:
    """Search a finished archive for known secrets.

    :raises LeakFound: there is one.
    """
    before = ""
    for data in archive.decompress(path):
        text = before + data.decode("utf-8", errors="replace")
        if redactor.contains_secret(text):
            raise LeakFound(
                "the finished debug package contained a secret of this node; it was deleted",
                "This is a bug; please report it without the package",
            )
        before = text[-OVERLAP:]


README = """What this node knew of itself when `sammy debug-package` ran.
Begin with provisioning-timings.txt and status.txt.

results.json says of each file whether it is whole and, if not, why. manifest.json names the node, the times and each
file's SHA-256; `sha256sum -c SHA256SUMS` checks them. Long logs have their ends.
Secrets are replaced by [scrubbed]: those this node knows in every writing, and what looks like one.
"""
