# SPDX-License-Identifier: Apache-2.0
"""Finds given secrets in text, in any encoding, whole or truncated: exact, and cheap on megabytes.

All encodings of all secrets are indexed by their overlapping 8-grams, and the text is probed in steps of 8: a part of
15 characters contains such an n-gram wherever it begins. A hit counts when 15 characters, or the whole of a shorter
encoding, agree, so that the common heads of keys and tokens are no matches.
"""

from __future__ import annotations

import base64
import bisect
import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

REDACTED = "[scrubbed]"
MIN_SECRET_CHARACTERS = 6  # a shorter text is in too many words to be searched for
NGRAM = 8
KEY_HEAD = 48  # characters of base64
MIN_MATCH = 2 * NGRAM - 1  # so much of a encoding in one piece is taken for the secret
_PUBLIC = re.compile(r"-----BEGIN (?:CERTIFICATE|PUBLIC KEY|TRUSTED CERTIFICATE)-----")
_END = re.compile(r"-----END ")
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class KnownSecrets:
    """Given secrets, found in each of their encodings."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        every = sorted({encoding for secret in secrets for encoding in encodings(secret)})
        short = [encoding for encoding in every if len(encoding) < MIN_MATCH]
        self._short = re.compile("|".join(map(re.escape, sorted(short, key=len, reverse=True)))) if short else None
        self._encodings = [encoding for encoding in every if len(encoding) >= MIN_MATCH]
        self._starts: list[int] = []
        self._ngrams: dict[str, list[int]] = {}
        position = 0
        for encoding in self._encodings:
            self._starts.append(position)
            for at in range(len(encoding) - NGRAM + 1):
                self._ngrams.setdefault(encoding[at : at + NGRAM], []).append(position + at)
            position += len(encoding)

    def __repr__(self) -> str:
        return f"<KnownSecrets {len(self._encodings)} encodings>"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of secrets in the text, in order, overlapping ones merged."""
        found = [match.span() for match in self._short.finditer(text)] if self._short else []
        ngrams = self._ngrams
        if ngrams:
            hits = [at for at in range(0, len(text) - NGRAM + 1, NGRAM) if text[at : at + NGRAM] in ngrams]
            found += [span for at in hits if (span := self._around(text, at)) is not None]
        return _merged(found)

    def contains_secret(self, text: str) -> bool:
        """Tell whether the text contains a secret."""
        return bool(self.spans(text))

    def redact(self, text: str) -> str:
        """Return the text with each secret replaced."""
        spans = self.spans(text)
        if not spans:
            return text
        parts, at = [], 0
        for begin, end in spans:
            parts += [text[at:begin], REDACTED]
            at = end
        return "".join([*parts, text[at:]])

    def _around(self, text: str, at: int) -> tuple[int, int] | None:
        """Return the longest part of any encoding that the text has around an n-gram's position."""
        best = (at, at)
        for position in self._ngrams[text[at : at + NGRAM]]:
            number = bisect.bisect_right(self._starts, position) - 1
            encoding, offset = self._encodings[number], position - self._starts[number]
            begin, end = at, at + NGRAM
            while begin > 0 and begin - at + offset > 0 and text[begin - 1] == encoding[begin - 1 - at + offset]:
                begin -= 1
            while end < len(text) and end - at + offset < len(encoding) and text[end] == encoding[end - at + offset]:
                end += 1
            if end - begin > best[1] - best[0]:
                best = (begin, end)
        return best if best[1] - best[0] >= MIN_MATCH else None


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def secret_parts(secret: str) -> list[str]:
    """Split a secret into searchable parts: each line, and the long words of multi-word lines; no certificates.

    The first line of a private key begins as in all keys of its kind, and its certificate contains some of it too.
    """
    kept: list[str] = []
    public = head = False
    for line in secret.splitlines():
        public = bool(_PUBLIC.search(line)) or (public and not _END.search(line))
        if not public and "-----" not in line:
            plain = line.strip()
            kept += [plain[KEY_HEAD:]] if head else [plain, *(word for word in plain.split() if len(word) > MIN_MATCH)]
        head = "-----BEGIN" in line
    return [word for word in dict.fromkeys(kept) if len(word) >= MIN_SECRET_CHARACTERS]


def encodings(secret: str) -> set[str]:
    """Return the ways a secret may be written: plain, for URLs, JSON, JSON in JSON, HTML, hex, base64 at any place.

    Of base64 only the part that no neighbour changes. A key of several lines counts line by line.
    """
    found: set[str] = set()
    for word in secret_parts(secret):
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
    return {encoding for encoding in found if len(encoding) >= MIN_SECRET_CHARACTERS}
