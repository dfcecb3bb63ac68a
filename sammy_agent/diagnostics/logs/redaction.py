# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of entries before they leave the node, with the debug package's redactor.

What one speaker said is redacted as one text: a private key that a program printed is an entry a line, and no line of
it looks like a secret. And it is searched only after that: else who asks could find out a secret letter by letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.logs.query import Query
from sammy_agent.diagnostics.redaction.redactor import PEM_BEGIN, PEM_BODY, PEM_END, Redactor

Speaker = tuple[str, ...]
KEY_BEGIN = "-----BEGIN PRIVATE KEY-----\n"
MOST_SPEAKERS = 1000  # whose last key may still be open; more are forgotten


def searching(query: Query, redactor: Redactor | None) -> Query:
    """Return the query, which searches no secrets where there is a redactor; nor a line that may be of a key."""
    if redactor is None:
        return query

    def searched(text: str) -> str:
        return "\n".join(PEM_BODY.sub("", line) for line in redactor.redact(text).splitlines())

    return replace(query, searched=searched)


class EntryRedactor:
    """Scrubs lists of entries that follow one another, oldest first; a key may reach from one into the next."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._in_key: set[Speaker] = set()

    def redact(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries without secrets."""
        by_speaker: dict[Speaker, list[int]] = {}
        for number, entry in enumerate(entries):
            by_speaker.setdefault(_speaker(entry), []).append(number)
        found = list(entries)
        for speaker, numbers in by_speaker.items():
            for number, message in zip(numbers, self._texts(speaker, [entries[n] for n in numbers]), strict=True):
                found[number] = replace(entries[number], message=message)
        return found

    def _texts(self, speaker: Speaker, entries: Sequence[Entry]) -> list[str]:
        counts = [len(entry.message.splitlines()) or 1 for entry in entries]
        lines = [line for entry in entries for line in entry.message.splitlines() or [""]]
        opened = speaker in self._in_key
        text = "".join(f"{line}\n" for line in lines)
        redacted = self._redactor.redact(KEY_BEGIN * opened + text).splitlines()[opened:]
        self._note(speaker, lines, opened)
        rest = iter(redacted)
        return ["\n".join(next(rest, "") for _ in range(count)) for count in counts]

    def _note(self, speaker: Speaker, lines: Iterable[str], opened: bool) -> None:
        for line in lines:
            if begin := PEM_BEGIN.search(line):
                opened = PEM_END.search(line, begin.end()) is None
            elif PEM_END.search(line):
                opened = False
        self._in_key.discard(speaker)
        if opened and len(self._in_key) < MOST_SPEAKERS:
            self._in_key.add(speaker)


def _speaker(entry: Entry) -> Speaker:
    names = ("container", "file", "unit", "identifier", "pid")
    return (entry.source, *(entry.metadata.get(name, "") for name in names))
