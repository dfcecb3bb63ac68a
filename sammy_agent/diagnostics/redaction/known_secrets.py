# SPDX-License-Identifier: Apache-2.0
"""Finds given secrets in text, whatever they are written in, whole or broken off: exact, and cheap on megabytes.

All forms of all secrets are cut into overlapping grams of 8 characters, and the text is looked at in steps of 8: a part
of 15 characters has such a gram in it wherever it begins. A hit counts when 15 characters, or the whole of a shorter
form, really agree, so that the common heads of keys and tokens hurt nobody.
"""

from __future__ import annotations

import base64
import bisect
import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

GONE = "[scrubbed]"
SHORTEST = 6  # a shorter text is in too many words to be searched for
GRAM = 8
KEY_HEAD = 48  # characters of base64
PART = 2 * GRAM - 1  # so much of a form in one piece is taken for the secret
_PUBLIC = re.compile(r"-----BEGIN (?:CERTIFICATE|PUBLIC KEY|TRUSTED CERTIFICATE)-----")
_END = re.compile(r"-----END ")
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class Known:
    """Secrets to be found in each of their forms."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        every = sorted({form for secret in secrets for form in forms(secret)})
        short = [form for form in every if len(form) < PART]
        self._short = re.compile("|".join(map(re.escape, sorted(short, key=len, reverse=True)))) if short else None
        self._forms = [form for form in every if len(form) >= PART]
        self._starts: list[int] = []
        self._grams: dict[str, list[int]] = {}
        position = 0
        for form in self._forms:
            self._starts.append(position)
            for at in range(len(form) - GRAM + 1):
                self._grams.setdefault(form[at : at + GRAM], []).append(position + at)
            position += len(form)

    def __repr__(self) -> str:
        return f"<Known {len(self._forms)} forms>"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where secrets stand in the text, in order, none touching another."""
        found = [match.span() for match in self._short.finditer(text)] if self._short else []
        grams = self._grams
        if grams:
            hits = [at for at in range(0, len(text) - GRAM + 1, GRAM) if text[at : at + GRAM] in grams]
            found += [span for at in hits if (span := self._around(text, at)) is not None]
        return _merged(found)

    def finds(self, text: str) -> bool:
        """Tell whether a secret stands in the text."""
        return bool(self.spans(text))

    def without(self, text: str) -> str:
        """Return the text with a mark in each secret's place."""
        spans = self.spans(text)
        if not spans:
            return text
        parts, at = [], 0
        for begin, end in spans:
            parts += [text[at:begin], GONE]
            at = end
        return "".join([*parts, text[at:]])

    def _around(self, text: str, at: int) -> tuple[int, int] | None:
        """Return the longest part of any form that the text holds around a gram's place."""
        best = (at, at)
        for position in self._grams[text[at : at + GRAM]]:
            number = bisect.bisect_right(self._starts, position) - 1
            form, offset = self._forms[number], position - self._starts[number]
            begin, end = at, at + GRAM
            while begin > 0 and begin - at + offset > 0 and text[begin - 1] == form[begin - 1 - at + offset]:
                begin -= 1
            while end < len(text) and end - at + offset < len(form) and text[end] == form[end - at + offset]:
                end += 1
            if end - begin > best[1] - best[0]:
                best = (begin, end)
        return best if best[1] - best[0] >= PART else None


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def words(secret: str) -> list[str]:
    """Return what of a file or a value is secret: its lines, and of several words the long ones; no certificates.

    A key's first line begins as that of all keys of its kind, and its certificate has some of that too.
    """
    kept: list[str] = []
    public = head = False
    for line in secret.splitlines():
        public = bool(_PUBLIC.search(line)) or (public and not _END.search(line))
        if not public and "-----" not in line:
            plain = line.strip()
            kept += [plain[KEY_HEAD:]] if head else [plain, *(word for word in plain.split() if len(word) > PART)]
        head = "-----BEGIN" in line
    return [word for word in dict.fromkeys(kept) if len(word) >= SHORTEST]


def forms(secret: str) -> set[str]:
    """Return the ways a secret may be written: plain, for URLs, JSON, JSON in JSON, HTML, hex, base64 at any place.

    Of base64 only the part that no neighbour changes. A key of several lines counts line by line.
    """
    found: set[str] = set()
    for word in words(secret):
        raw = word.encode("utf-8", errors="surrogatepass")
        inside = json.dumps(word)[1:-1]
        escaped = {quote(word, safe="", errors="replace"), quote(word, errors="replace")}
        found |= {word, inside, json.dumps(inside)[1:-1], inside.translate(_GO), inside.replace("/", "\\/")}
        found |= {html.escape(word), raw.hex(), raw.hex().upper()}
        found |= {*escaped, *(_ESCAPE.sub(lambda hit: hit[0].lower(), one) for one in escaped)}
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
            inner = text[(0, 2, 3)[shift] : len(text) - 1 if (len(raw) + shift) % 3 else None]
            found |= {inner, inner.replace("+", "-").replace("/", "_"), quote(inner, safe="")}
    return {form for form in found if len(form) >= SHORTEST}
