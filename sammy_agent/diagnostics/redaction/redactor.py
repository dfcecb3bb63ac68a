# SPDX-License-Identifier: Apache-2.0
"""Redacts text: first the secrets this node knows, exactly, then what looks like a secret.

Pure and streaming, so that a journal need not be held in memory. Redacting too much is a fault as well: a log without
its reasons helps nobody, so a line that only mentions tokens stays.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

from sammy_agent.diagnostics.redaction.secret_matcher import REDACTED, KnownSecrets
from sammy_agent.diagnostics.redaction.secret_patterns import HINTS, NAME, RULES, Hints

__all__ = ["REDACTED", "RedactionStream", "Redactor"]

MAX_PEM_LINES = 200  # lines; a BEGIN without its END must not swallow the evidence behind it
MAX_LINE_CHARACTERS = 512 * 1024  # characters; a longer one is cut at a blank or a comma
PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
PEM_WHOLE = re.compile(rf"({PEM_BEGIN.pattern}).{{0,20000}}?({PEM_END.pattern})")  # in one line, its line ends escaped
# The last word of a line inside a key: in a journal a prefix stands before it.
PEM_BODY = re.compile(r"(?:\\n|[A-Za-z0-9+/=]){16,}\s*$")
PEM_LAST = re.compile(r"[A-Za-z0-9+/=]{4,}\s*$")  # its last line may be short
# A line that says that the next one holds a value: an option's name in a list of arguments, a "name" before its
# "value", a YAML block. The next line, then.
EXPECTS_VALUE = re.compile(
    rf"(?i)^\s*(?:-\s+)?(?:[\"']--?[\w-]*{NAME}[\"']|(?:-\s+)?--[\w-]*{NAME}"
    rf"|[\"']?(?:name|key)[\"']?\s*:\s*[\"']?[\w.-]*{NAME}[\"']?),?\s*$"
)
EXPECTED_VALUE = re.compile(
    r"^(\s*(?:-\s+)?(?:[\"']?value[\"']?\s*:\s*)?)(?![\[{\"']*[-/$]|\s*[\w\"']+\s*:)([\"']?)(.+?)(\2,?\s*)$"
)
# What a journal and Docker put before each line of a text of several.
PREFIX = re.compile(r"[A-Z][a-z]{2} [ \d]\d [\d:.]+ \S+ [^:\[]{1,64}(?:\[\d+\])?: |\d{4}-\d\d-\d\d[T ][\d:.,]+\S* ")
BLOCK = re.compile(rf"(?i)^(\s*)(?:-\s+)?[\"']?[\w.-]*{NAME}[\"']?\s*:\s*[|>][+-]?\s*$")
BASE64 = re.compile(r"(?<![\w+/-])(?=[A-Za-z0-9+/_-]*[G-Zg-z])[A-Za-z0-9+/_-]{20,}={0,2}")
WRAPPED = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
WRAPPED_END = re.compile(r"[A-Za-z0-9+/_-]{2,}={0,2}")
WRAPPED_HINT = re.compile(r"(?:^|\s)[A-Za-z0-9+/_-]{40,}={0,2}\n[^\n]*[A-Za-z0-9+/=_-]{4,}\n")
READABLE = frozenset(range(32, 127)) | {9, 10, 13}


class Redactor:
    """Removes the given secrets, in each of their encodings, and what looks like one from texts.

    :param after: applied to each line last, for example pseudonyms.
    """

    def __init__(self, secrets: Iterable[str] = (), after: Callable[[str], str] = lambda line: line) -> None:
        self.known = KnownSecrets(secrets)
        self.after = after

    def __repr__(self) -> str:
        return f"<Redactor {self.known!r}, {len(RULES)} rules>"

    def redact(self, text: str) -> str:
        """Return the text without secrets; lines stay lines."""
        stream = self.stream()
        return stream.feed(text) + stream.end()

    def stream(self) -> RedactionStream:
        """Return the redaction of a new text, piece by piece."""
        return RedactionStream(self)

    def contains_secret(self, text: str) -> bool:
        """Tell whether the text still contains a known secret."""
        return self.known.contains_secret(text)


class RedactionStream:
    """One text being redacted: what is fed comes back clean, its last line with the next piece or at the end."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest = ""
        self._begun = False
        self._in_key = 0  # lines that may still be of a private key
        self._value_expected = False
        self._hints = HINTS
        self._block: int | None = None  # the indentation of a YAML name whose block is a secret

    def feed(self, text: str) -> str:
        """Take more of the text; return what of it is clean by now."""
        text = self._rest + text
        cut = text.rfind("\n") + 1
        if not cut and len(text) > MAX_LINE_CHARACTERS:
            cut = max(text.rfind(mark, MAX_LINE_CHARACTERS // 2) for mark in " ,;") + 1 or len(text)
        self._rest = text[cut:]
        return self._clean(text[:cut])

    def end(self) -> str:
        """Return the rest."""
        text, self._rest = self._rest, ""
        return self._clean(text)

    def _clean(self, text: str) -> str:
        if not text:
            return ""
        if WRAPPED_HINT.search(text):
            text = "".join(self._without_wrapped(text.splitlines(keepends=True)))
        text = self._redactor.known.redact(text)
        lines, lowered = text.splitlines(keepends=True), text.lower()
        # most blocks of a log have few hints in them, so most rules need not be thought of line by line
        self._hints = [(hint, rules) for hint, rules in HINTS if hint in lowered]
        if not self._begun:
            self._begun = True
            lines = _without_rest(lines)
        return "".join(self._redactor.after(self._line(line)) for line in lines)

    def _without_wrapped(self, lines: list[str]) -> list[str]:
        """Take out base64 of several lines that holds a secret: in none of them it stands whole."""
        begin = 0
        while begin < len(lines):
            words = _wrapped(lines[begin : begin + MAX_PEM_LINES])
            if len(words) > 1 and (
                self._redactor.known.contains_secret("".join(words)) or _holds_secret("".join(words))
            ):
                for at, word in enumerate(words, begin):
                    lines[at] = lines[at].replace(word, REDACTED)
            begin += max(1, len(words))
        return lines

    def _line(self, line: str) -> str:
        if "-----" in line:
            line = PEM_WHOLE.sub(rf"\1{REDACTED}\3", line)
        if self._in_key and PEM_END.search(line):
            self._in_key = 0
            body, _, rest = line.partition("-----END")
            return PEM_BODY.sub(REDACTED, body) + "-----END" + _by_rules(rest, self._hints)
        if self._in_key:
            self._in_key -= 1
            return PEM_BODY.sub(REDACTED + "\n", line)
        if "-----BEGIN" in line and (begin := _open_key(line)) is not None:
            self._in_key = MAX_PEM_LINES
            rest = line[begin:].strip()
            return _by_rules(line[:begin], self._hints) + (REDACTED if rest else "") + "\n"
        return self._value(line)

    def _value(self, line: str) -> str:
        """Redact a line by the rules; it may be the value that the previous line announced."""
        prefix, line = _without_prefix(line)
        return prefix + self._message(line)

    def _message(self, line: str) -> str:
        if self._block is not None:
            indented = len(line) - len(line.lstrip())
            if not line.strip() or indented > self._block:
                return line if REDACTED in line or not line.strip() else line[:indented] + REDACTED + "\n"
            self._block = None
        awaited, self._value_expected = self._value_expected, EXPECTS_VALUE.match(line) is not None
        if awaited and REDACTED not in line and not self._value_expected:
            line = EXPECTED_VALUE.sub(rf"\g<1>\g<2>{REDACTED}\g<4>", line)
        if (block := BLOCK.match(line)) is not None:
            self._block = len(block[1])
        return _by_rules(line, self._hints)


def _without_prefix(line: str) -> tuple[str, str]:
    match = PREFIX.match(line)
    return ("", line) if match is None else (line[: match.end()], line[match.end() :])


def _wrapped(lines: list[str]) -> list[str]:
    """Return the lines' beginning that is one base64 text: all of one length, and a last one that may be shorter."""
    words: list[str] = []
    for line in lines:
        word = _without_prefix(line)[1].strip()
        if not (WRAPPED if not words else WRAPPED_END).fullmatch(word) or len(word) % 4:
            break
        if words and len(word) > len(words[0]):
            break
        words.append(word)
        if len(word) < len(words[0]):
            break
    return words


def _open_key(line: str) -> int | None:
    """Return where a private key begins that the line does not end."""
    ends = [begin.end() for begin in PEM_BEGIN.finditer(line)]
    return ends[-1] if ends and not PEM_END.search(line, ends[-1]) else None


def _without_rest(lines: list[str]) -> list[str]:
    """Take out the rest of a key whose BEGIN was cut off with the text before it."""
    marks = (
        at for at, line in enumerate(lines) if "-----" in line and (PEM_BEGIN.search(line) or PEM_END.search(line))
    )
    end = next(marks, None)
    if end is None or PEM_BEGIN.search(lines[end]):
        return lines
    first = end
    while first and end - first < MAX_PEM_LINES and (PEM_LAST if first == end else PEM_BODY).search(lines[first - 1]):
        first -= 1
    rest = [PEM_LAST.sub(REDACTED + "\n", line) for line in lines[first:end]]
    return [*lines[:first], *rest, *lines[end:]]


def _by_rules(line: str, hints: Hints) -> str:
    lowered = line.lower()
    wanted = 0
    for hint, rules in hints:
        if hint in lowered:
            wanted |= rules
    while wanted:
        lowest = wanted & -wanted
        wanted ^= lowest
        rule = RULES[lowest.bit_length() - 1]
        line = rule.pattern.sub(rule.by, line)
    return BASE64.sub(_decoded, line) if len(line) > 20 else line


def _decoded(match: re.Match[str]) -> str:
    """Return a word of base64, replaced when its decoded text would be redacted."""
    return REDACTED if _holds_secret(match[0]) else match[0]


def _holds_secret(base64_text: str) -> bool:
    """Tell whether it is base64 of a text that would be redacted."""
    word = base64_text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(word + "=" * (-len(word) % 4))
    except (ValueError, binascii.Error):
        return False
    if not READABLE.issuperset(raw[:64]):
        return False
    text = raw.decode("utf-8", errors="replace")
    return "".join(_redacted_lines(text)) != text


def _redacted_lines(text: str) -> Iterator[str]:
    stream = RedactionStream(_RULES_ONLY)
    yield stream.feed(text)
    yield stream.end()


_RULES_ONLY = Redactor()
