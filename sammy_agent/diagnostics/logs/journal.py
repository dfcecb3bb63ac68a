# SPDX-License-Identifier: Apache-2.0
"""The journal, read by journald's own library: from the newest entry back, and onwards as it grows.

What python3-systemd does to every field of every entry (235) costs more than reading it, so entries are taken raw. The
journal is never read through for a span of time: it is sought by time, and by source and level where they have fields
of their own. A position is an entry's cursor; whether an entry is that one is told by boot, times and hash, because its
number changes when journald moves it from /run to /var.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from systemd import journal

from cc_sammy.contract.journal_fields import IDENTIFIER
from sammy_agent.diagnostics.logs.entry import YIELD_EVERY, Entry, Positioned, PositionInvalid, decode
from sammy_agent.diagnostics.logs.query import Query

UNIT = "sammy-agent.service"
FOLDERS = ("/var/log/journal", "/run/log/journal")
INFO, WARNING, ERR = 6, 4, 3
MAX_DAMAGED = 1000  # entries in a row that cannot be read, before a reader gives up
BATCH, MAX_SKIPPED = 500, 50_000  # entries of one poll: returned, and read for it
_PACKED = struct.Struct(">16sQ16sQQQ")
_CURSOR = re.compile(r"s=(\w{32});i=(\w+);b=(\w{32});m=(\w+);t=(\w+);x=(\w+)")
# Before the journal's first entry: what comes later is all of it.
EMPTY = b"\0"

Fields = dict[str, Any]


class Reader(journal.Reader):  # type: ignore[misc]  # no types in Debian
    """Hands out entries as they lie there: bytes, a list of them where a field is repeated."""

    def _convert_entry(self, entry: Fields) -> Fields:
        return entry


class Journal:
    """The journal as a source; which of its entries are whose is told by fields that only journald and root can set.

    :param root: put before the folders, for images and tests.
    """

    tag = 1

    def __init__(self, query: Query, root: str = "") -> None:
        self._query, self._root = query, root
        self.notes: list[str] = []

    def end_position(self) -> bytes:
        """Return the position of the newest entry there is."""
        with contextlib.closing(_open(self._root)) as reader:
            reader.seek_tail()
            newest = _previous(reader)
        return _pack(newest["__CURSOR"]) if newest else EMPTY

    def read_backwards(self, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        """Yield the newest first; see `Source`."""
        if position == EMPTY:
            return
        with contextlib.closing(_open(self._root)) as reader:
            if not _narrow(reader, self._query):
                return
            yield from self._scan(reader, position, until)

    def _scan(self, reader: Reader, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        skipped = 0
        for fields in _from(reader, position, until):
            if self._query.since is not None and fields["__REALTIME_TIMESTAMP"] < self._query.since:
                return
            entry = None
            if until is None or fields["__REALTIME_TIMESTAMP"] <= until:
                entry = entry_of(fields, self._query)
            skipped = 0 if entry else skipped + 1
            if entry or skipped % YIELD_EVERY == 0:
                yield Positioned(entry, _pack(fields["__CURSOR"]))

    def tail(self, position: bytes) -> JournalTail:
        """Return what comes after the position."""
        return JournalTail(self._query, position, self._root)


class JournalTail:
    """The journal from an entry on. Survives rotation, vacuum, restarts of journald, and the move from /run to /var."""

    def __init__(self, query: Query, position: bytes, root: str = "") -> None:
        self._query, self._root = query, root
        self._last = position
        self._reader: Reader | None = None
        self._seen: tuple[object, ...] = ()

    def filenos(self) -> Sequence[int]:
        """Return the library's descriptor: it becomes readable when the journal has changed."""
        return [self._opened().fileno()]

    def close(self) -> None:
        """Close the journal."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def poll(self) -> Sequence[Entry]:
        """Return up to a batch of new entries."""
        reader = self._opened()
        entries: list[Entry] = []
        fields: Fields | None = None
        try:
            reader.process()  # lets go of files that were vacuumed away, and finds new ones
            for _ in range(MAX_SKIPPED):
                if len(entries) == BATCH or not (following := _step(reader, 1)):
                    break
                fields = following
                if entry := entry_of(fields, self._query):
                    entries.append(entry)
        except OSError:
            self.close()  # reopened by the next poll, where this one ended
        if fields:
            self._last = _pack(fields["__CURSOR"])
        return entries

    def _opened(self) -> Reader:
        """Return the reader after the last entry; reopened for a new folder, which the library does not see."""
        seen = _folders(self._root)
        if seen != self._seen:
            self.close()
        if self._reader is None:
            self._seen = seen
            self._reader = _open(self._root)
            self._reader.fileno()  # the library watches the journal from here on
            _narrow(self._reader, self._query, live=True)
            _seek_behind(self._reader, self._last)
        return self._reader


def _open(root: str) -> Reader:
    return Reader(flags=journal.OS_ROOT, path=root) if root else Reader()


def _folders(root: str) -> tuple[object, ...]:
    found: list[object] = []
    for folder in FOLDERS:
        try:
            with os.scandir(root + folder) as entries:
                found += sorted((entry.name, entry.inode()) for entry in entries if entry.is_dir())
        except OSError:
            found.append(folder)
    return tuple(found)


def _narrow(reader: Reader, query: Query, *, live: bool = False) -> bool:
    """Let the library leave out what it can by its indexes; tell whether anything may be left."""
    if query.source == "agent":
        reader.add_match(f"_SYSTEMD_UNIT={UNIT}")
        reader.add_disjunction()
        reader.add_match(f"UNIT={UNIT}", "_PID=1")
    elif query.source == "sammy":
        reader.add_match(f"SYSLOG_IDENTIFIER={IDENTIFIER}", "_UID=0")
    elif query.source == "docker" or query.container:
        if not live and not _narrow_to_containers(reader, query):  # live, new ones may come
            return False
        reader.add_match("_UID=0")
    if query.level in ("warn", "error"):  # at info an entry without a priority counts, and no index tells of it
        reader.add_conjunction()
        reader.add_match(*(f"PRIORITY={number}" for number in range((WARNING if query.level == "warn" else ERR) + 1)))
    return True


def _narrow_to_containers(reader: Reader, query: Query) -> bool:
    unconverted = super(journal.Reader, reader).query_unique("CONTAINER_NAME")
    by_name = [
        name for name in unconverted if query.is_by_id or query.includes_container(name.decode(errors="replace"))
    ]
    for name in by_name:
        reader.add_match(b"CONTAINER_NAME=" + name)
    return bool(by_name)


def _from(reader: Reader, position: bytes | None, until: int | None) -> Iterator[Fields]:
    """Yield the entries back from a position on, newest first."""
    if position is None:
        if until is None:
            reader.seek_tail()
        else:
            reader.seek_realtime(until)
        yield from _back(reader)
        return
    cursor, identity = _unpack(position)
    reader.seek_cursor(cursor)
    entries = _back(reader)
    # When the entry was moved, it is found by its boot's clock: others of its microsecond may come before it, which
    # were given out already.
    first: list[Fields] = []
    for fields in entries:
        first.append(fields)
        found = _identity(fields["__CURSOR"])
        if found == identity:
            first = [fields]
        if found == identity or found[:2] != identity[:2]:
            break
    yield from first
    yield from entries


def _seek_behind(reader: Reader, position: bytes) -> None:
    """Put the reader where the next step forward gives the first entry after the position."""
    if position == EMPTY:
        reader.seek_head()
        return
    cursor, identity = _unpack(position)
    reader.seek_cursor(cursor)
    while fields := _step(reader, 1):
        found = _identity(fields["__CURSOR"])
        if found == identity:
            return
        if found[:2] != identity[:2]:
            break
    reader.seek_cursor(cursor)  # it is gone, or does not answer the question: all that was read is new


def _back(reader: Reader) -> Iterator[Fields]:
    while fields := _previous(reader):
        yield fields


def _previous(reader: Reader) -> Fields:
    return _step(reader, -1)


def _step(reader: Reader, way: int) -> Fields:
    """Return the next entry that can be read, {} at the end; damaged ones are skipped, as journalctl does."""
    for _ in range(MAX_DAMAGED):
        try:
            fields: Fields = reader.get_next(way)
            return fields
        except OSError as error:
            if error.errno not in (errno.EBADMSG, errno.EADDRNOTAVAIL, errno.ENOENT, errno.EPROTONOSUPPORT):
                raise
    return {}


def entry_of(fields: Mapping[str, Any], query: Query) -> Entry | None:
    """Return the entry, None where the query does not include it."""
    source, level = _source(fields), _level(_one(fields, "PRIORITY"))
    if not query.includes(source) or not query.includes_level(level):
        return None
    container = _text(fields, "CONTAINER_NAME") if source == "docker" else ""
    if query.container and not query.includes_container(container, _text(fields, "CONTAINER_ID_FULL")):
        return None
    message = decode(_one(fields, "MESSAGE"))
    if not query.matches(message):
        return None
    unit = _text(fields, "UNIT") if _one(fields, "_PID") == b"1" else ""
    metadata = {
        "boot": _text(fields, "_BOOT_ID"),
        "unit": unit or _text(fields, "_SYSTEMD_UNIT"),
        "identifier": "" if container else _text(fields, "SYSLOG_IDENTIFIER") or _text(fields, "_COMM"),
        "pid": "" if container else _text(fields, "_PID"),
        "container": container,
        "step": _text(fields, "SAMMY_STEP") if source == "sammy" else "",
    }
    kept = {name: value for name, value in metadata.items() if value}
    return Entry(fields["__REALTIME_TIMESTAMP"], level, source, message, kept)


def _source(fields: Mapping[str, Any]) -> str:
    """Return an entry's source; identifiers that any process can set count only from root."""
    if _one(fields, "_UID") == b"0":
        if "CONTAINER_NAME" in fields:
            return "docker"
        if _one(fields, "SYSLOG_IDENTIFIER") == IDENTIFIER.encode():
            return "sammy"
    unit = UNIT.encode()
    if _one(fields, "_SYSTEMD_UNIT") == unit or (_one(fields, "UNIT") == unit and _one(fields, "_PID") == b"1"):
        return "agent"
    return "systemd"


def _level(priority: bytes) -> str:
    if priority in (b"0", b"1", b"2", b"3"):
        return "error"
    return {b"4": "warn", b"7": "debug"}.get(priority, "info")


def _one(fields: Mapping[str, Any], name: str) -> bytes:
    value = fields.get(name, b"")
    found: bytes = value[-1] if isinstance(value, list) else value
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    return _one(fields, name)[:256].decode("utf-8", errors="replace")


def _identity(cursor: str) -> tuple[str, ...]:
    """Return what stays of an entry's cursor wherever the entry is moved: boot, its clock, the time, the hash."""
    return tuple(part for part in cursor.split(";") if part[0] in "bmtx")


def _pack(cursor: str) -> bytes:
    """Return an entry's position."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise ValueError(f"a journal cursor of an unknown kind: {cursor}")
    file, number, boot, clock, time, digest = found.groups()
    first, *rest = (int(text, 16) for text in (number, clock, time, digest))
    return _PACKED.pack(bytes.fromhex(file), first, bytes.fromhex(boot), *rest)


def _unpack(position: bytes) -> tuple[str, tuple[str, ...]]:
    """Return an entry's cursor and identity. PositionInvalid when the position is none."""
    try:
        file, number, boot, clock, time, digest = _PACKED.unpack(position)
    except struct.error:
        raise PositionInvalid("not in the journal") from None
    cursor = f"s={file.hex()};i={number:x};b={boot.hex()};m={clock:x};t={time:x};x={digest:x}"
    return cursor, _identity(cursor)
