# SPDX-License-Identifier: Apache-2.0
"""Redacts entries before they leave the node, with the debug package's redactor.

The entries of one stream are redacted as one text: a private key that a program printed is one entry per line, and no
line of it looks like a secret. Search sees redacted text only: else a client could guess a secret letter by letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.logs.query import Query
from sammy_agent.diagnostics.redaction.redactor import PEM_BEGIN, PEM_BODY, PEM_END, Redactor

StreamId = tuple[str, ...]
KEY_BEGIN = "-----BEGIN PRIVATE KEY-----\n"
MAX_OPEN_KEYS = 1000  # streams inside a private key; more are forgotten


def restrict_search(query: Query, redactor: Redactor | None) -> Query:
    """Return a query that searches redacted text only, without lines that may belong to a private key."""
    if redactor is None:
        return query

    def searchable_text(text: str) -> str:
        return "\n".join(PEM_BODY.sub("", line) for line in redactor.redact(text).splitlines())

    return replace(query, searchable_text=searchable_text)


class EntryRedactor:
    """Redacts consecutive lists of entries, oldest first; a private key may span two of them."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._inside_private_key: set[StreamId] = set()

    def redact(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries without secrets."""
        by_stream: dict[StreamId, list[int]] = {}
        for number, entry in enumerate(entries):
            by_stream.setdefault(_stream_id(entry), []).append(number)
        found = list(entries)
        for stream, numbers in by_stream.items():
            for number, message in zip(numbers, self._texts(stream, [entries[n] for n in numbers]), strict=True):
                found[number] = replace(entries[number], message=message)
        return found

    def _texts(self, stream: StreamId, entries: Sequence[Entry]) -> list[str]:
        counts = [len(entry.message.splitlines()) or 1 for entry in entries]
        lines = [line for entry in entries for line in entry.message.splitlines() or [""]]
        inside_key = stream in self._inside_private_key
        text = "".join(f"{line}\n" for line in lines)
        redacted = self._redactor.redact(KEY_BEGIN * inside_key + text).splitlines()[inside_key:]
        self._note(stream, lines, inside_key)
        rest = iter(redacted)
        return ["\n".join(next(rest, "") for _ in range(count)) for count in counts]

    def _note(self, stream: StreamId, lines: Iterable[str], inside_key: bool) -> None:
        for line in lines:
            if begin := PEM_BEGIN.search(line):
                inside_key = PEM_END.search(line, begin.end()) is None
            elif PEM_END.search(line):
                inside_key = False
        self._inside_private_key.discard(stream)
        if inside_key and len(self._inside_private_key) < MAX_OPEN_KEYS:
            self._inside_private_key.add(stream)


def _stream_id(entry: Entry) -> StreamId:
    names = ("container", "file", "unit", "identifier", "pid")
    return (entry.source, *(entry.metadata.get(name, "") for name in names))
