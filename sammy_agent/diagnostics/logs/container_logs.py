# SPDX-License-Identifier: Apache-2.0
"""Containers whose log is not in the journal, through `docker logs`.

Where cc_sammy configured Docker, the journal has them and no program is started. All other containers are one source,
in order of time. A position is a time in nanoseconds and the index of its last line:
however many containers there are, it stays small. `docker logs` cannot read backwards, so we read time windows,
doubling each.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from sammy_agent.base.runtime import process
from sammy_agent.base.runtime.process import ENVIRONMENT, Program
from sammy_agent.diagnostics.logs.entry import Entry, Positioned, PositionInvalid, decode
from sammy_agent.diagnostics.logs.query import Query

BILLION = 10**9
FIRST_SPAN = 600 * BILLION  # nanoseconds
# A container's two streams are stamped in parallel and written as they come: Docker stops at the first line past the
# end, though an earlier one may follow it.
SLACK = 5 * BILLION
ANSWERS = 10.0  # seconds within which the daemon lists its containers
LIST_EVERY = 5.0  # seconds
SPAN_SECONDS = 20.0  # to read one container's output of a time window
MAX_LINE_BYTES = 64 * 1024
IN_JOURNAL, WITHOUT_LOG = "journald", "none"
FORMAT = "[{{json .Id}},{{json .Name}},{{json .HostConfig.LogConfig.Type}},{{json .Created}},{{json .State.Running}}]"
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z ?(.*)", re.DOTALL)
_PACKED = struct.Struct(">Q4sBI")


@dataclass(frozen=True)
class Container:
    """A container whose log Docker itself keeps; `created` in nanoseconds since 1970."""

    identity: str
    name: str
    created: int
    is_running: bool


# (timestamp ns, container, stream, index of the line within that nanosecond)
Key = tuple[int, bytes, int, int]


def is_available() -> bool:
    """Tell whether this machine has Docker's client and something for it to ask."""
    return shutil.which("docker", path=ENVIRONMENT["PATH"]) is not None and os.path.exists("/run/docker.sock")


def containers(query: Query, environment: Mapping[str, str] = ENVIRONMENT) -> list[Container]:
    """Return those that the query includes and the journal lacks. OSError when the daemon does not answer."""
    listed = _ask(["docker", "ps", "--all", "--quiet", "--no-trunc"], environment).split()
    if not listed:
        return []
    lines = _ask(["docker", "inspect", "--format", FORMAT, *listed], environment, check=False).splitlines()
    found = []
    for identity, name, driver, created, running in map(json.loads, lines):
        short = name.lstrip("/")
        if driver not in (IN_JOURNAL, WITHOUT_LOG) and query.includes_container(short, identity):
            found.append(Container(identity, short, _nanoseconds(created.encode()) or 0, running))
    return found


def _ask(argv: Sequence[str], environment: Mapping[str, str], *, check: bool = True) -> str:
    """Return what the client prints. OSError with its reason; unless `check`, an exit status is none."""
    answer = process.run(argv, ANSWERS, environment=environment)
    if answer.problem or (check and not answer.ok):
        raise OSError(0, answer.failure, "docker")
    return answer.text


class ContainerLogs:
    """Docker's own logs as a source.

    :param environment: of the programs; DOCKER_HOST in it names another daemon than this machine's.
    """

    tag = 4

    def __init__(self, query: Query, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._query, self._environment = query, environment
        self.notes: list[str] = []

    def end_position(self) -> bytes:
        """Return the position of now: later output has a later time."""
        return _PACKED.pack(time.time_ns(), b"", 0, 0)

    def read_backwards(self, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        """Yield the newest first; see `Source`."""
        upper: Key = (time.time_ns() + BILLION, b"", 0, 0) if position is None else _key(position)
        if until is not None:
            upper = min(upper, ((until + 1) * 1000, b"", 0, 0))
        found = containers(self._query, self._environment)
        oldest = min((container.created for container in found), default=upper[0])
        if self._query.since is not None:
            oldest = max(oldest, self._query.since * 1000)
        span = FIRST_SPAN
        while upper[0] >= oldest and found:
            since = max(oldest, upper[0] - span)
            newest = self._newest(found, since, upper)
            for key, entry in newest:
                yield Positioned(entry, _PACKED.pack(*key[:3], key[3] + 1))
            if len(newest) < self._query.limit:  # that was all of the span
                upper, span = (since, b"", 0, 0), span * 2
                yield Positioned(None, _PACKED.pack(*upper))
                if since <= oldest:
                    return
            else:
                upper = newest[-1][0]

    def _newest(self, found: Sequence[Container], since: int, upper: Key) -> list[tuple[Key, Entry]]:
        """Return a span's newest entries that the query includes, one page at most, newest first."""
        kept: list[tuple[Key, Entry]] = []
        for container in found:
            if container.created > upper[0]:
                continue
            for key, entry in self._span(container, since, upper):
                if key >= upper or key[0] < since:
                    continue
                if len(kept) < self._query.limit:
                    heapq.heappush(kept, (key, entry))
                elif key > kept[0][0]:
                    heapq.heapreplace(kept, (key, entry))
        return sorted(kept, key=lambda one: one[0], reverse=True)

    def _span(self, container: Container, since: int, upper: Key) -> Iterator[tuple[Key, Entry]]:
        argv = ["docker", "logs", "--timestamps", "--since", _seconds(since), "--until", _seconds(upper[0] + SLACK)]
        for number in (1, 2):  # one stream after the other: in one pipe they would be mixed
            last, count = 0, 0
            with contextlib.closing(_lines([*argv, container.identity], number, self._environment)) as lines:
                for line in lines:
                    if (at := _nanoseconds(line)) is None:
                        continue
                    count = count + 1 if at == last else 0
                    last = at
                    if entry := entry_of(line, container, number, self._query):
                        yield (at, bytes.fromhex(container.identity[:8]), number, count), entry

    def tail(self, position: bytes) -> ContainerLogsTail:
        """Return what comes after the position."""
        return ContainerLogsTail(self._query, _key(position)[0], self._environment)


class ContainerLogsTail:
    """The containers' output from a time on: one `docker logs --follow` per running container."""

    def __init__(self, query: Query, since: int, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self._query, self._since, self._environment = query, since, environment
        self._followed: dict[str, _Follower] = {}
        self._listed = -LIST_EVERY
        self._seen: dict[str, int] = {}  # nanoseconds behind a container's last line

    def filenos(self) -> Sequence[int]:
        """Return the pipes."""
        return [number for one in self._followed.values() for number in one.pipes]

    def close(self) -> None:
        """End the programs."""
        for one in self._followed.values():
            one.close()
        self._followed.clear()

    def poll(self) -> Sequence[Entry]:
        """Return what is new; now and then, see whether containers came."""
        if time.monotonic() - self._listed >= LIST_EVERY:
            self._look()
        entries: list[Entry] = []
        for identity, one in list(self._followed.items()):
            for number, line in one.lines():
                entry = entry_of(line, one.container, number, self._query)
                self._seen[identity] = max(self._seen.get(identity, 0), (_nanoseconds(line) or 0) + 1)
                entries += [entry] if entry else []
            if not one.pipes:
                one.close()
                del self._followed[identity]
        return entries

    def _look(self) -> None:
        self._listed = time.monotonic()
        try:
            found = containers(self._query, self._environment)
        except OSError:
            return  # it may be starting; the next look is soon
        for container in found:
            if container.is_running and container.identity not in self._followed:
                since = self._seen.get(container.identity, self._since)
                self._followed[container.identity] = _Follower(container, since, self._environment)


class _Follower:
    """One `docker logs --follow` with its two pipes, read without waiting."""

    def __init__(self, container: Container, since: int, environment: Mapping[str, str]) -> None:
        self.container = container
        argv = ["docker", "logs", "--timestamps", "--follow", "--since", _seconds(since), container.identity]
        self._program = Program(argv, None, environment=environment)
        self.pipes = {pipe: (stream, b"") for pipe, stream in self._program.pipes.items()}

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield new whole lines with their stream's number; a pipe at its end is dropped."""
        for pipe, (stream, begun) in list(self.pipes.items()):
            try:
                data = os.read(pipe, MAX_LINE_BYTES)
            except BlockingIOError:
                continue
            *whole, rest = (begun + data).split(b"\n")
            yield from ((stream, line) for line in whole)
            if not data or len(rest) > MAX_LINE_BYTES:
                if rest:
                    yield stream, rest
                rest = b""
            self.pipes[pipe] = (stream, rest)
            if not data:
                del self.pipes[pipe]

    def close(self) -> None:
        """End the program."""
        self.pipes.clear()
        self._program.close()


def entry_of(line: bytes, container: Container, stream: int, query: Query) -> Entry | None:
    """Parse a line with its timestamp; None where the query does not include it.

    :param stream: 1 standard output, 2 standard error.
    """
    stamp = STAMP.match(line)
    at = _nanoseconds(line)
    level = "error" if stream == 2 else "info"  # as Docker itself tells the journal
    if stamp is None or at is None or not query.includes_level(level):
        return None
    message = decode(stamp[3].rstrip(b"\r\n"))
    return (
        Entry(at // 1000, level, "docker", message, {"container": container.name}) if query.matches(message) else None
    )


def _lines(argv: Sequence[str], stream: int, environment: Mapping[str, str]) -> Generator[bytes, None, None]:
    """Yield the lines of one of a program's streams, overlong ones in pieces. OSError when it takes too long."""
    rest = b""
    with Program(argv, SPAN_SECONDS, streams=(stream,), environment=environment) as program:
        for _, data in program.chunks():
            *whole, rest = (rest + data).split(b"\n")
            yield from (line + b"\n" for line in whole)
            if len(rest) > MAX_LINE_BYTES:
                yield rest
                rest = b""
    if rest:
        yield rest
    if program.problem:
        raise OSError(0, f"{program.problem}. Ask for a shorter time", f"docker logs {argv[-1]}")


def _nanoseconds(line: bytes) -> int | None:
    """Return the time that a line begins with, nanoseconds since 1970."""
    stamp = STAMP.match(line)
    if stamp is None:
        return None
    try:
        moment = datetime.strptime(stamp[1].decode(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(moment.timestamp()) * BILLION + int((stamp[2] or b"0").ljust(9, b"0"))


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // BILLION}.{nanoseconds % BILLION:09d}"


def _key(position: bytes) -> Key:
    try:
        at, identity, stream, count = _PACKED.unpack(position)
    except struct.error:
        raise PositionInvalid("not in Docker's logs") from None
    return at, b"" if identity == bytes(4) else identity, stream, count
