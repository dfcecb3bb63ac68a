# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of text: first those this node knows, letter by letter, then what looks like one.

Pure: text in, text out, piece by piece, so that a journal need not be held whole. Taking out too much is a fault as
well: a log without its reasons helps nobody, so what merely speaks of tokens stays.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

from sammy_agent.diagnostics.redaction.known_secrets import GONE, Known, forms
from sammy_agent.diagnostics.redaction.patterns import HINTS, NAME, RULES, Hints

__all__ = ["GONE", "Scrubber", "Stream", "forms"]

LONGEST_PEM = 200  # lines; a BEGIN without its END must not swallow the evidence behind it
LONGEST_LINE = 512 * 1024  # characters; a longer one is cut at a blank or a comma
PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
PEM_WHOLE = re.compile(rf"({PEM_BEGIN.pattern}).{{0,20000}}?({PEM_END.pattern})")  # in one line, its line ends escaped
# The last word of a line inside a key: in a journal a prefix stands before it.
PEM_BODY = re.compile(r"(?:\\n|[A-Za-z0-9+/=]){16,}\s*$")
PEM_LAST = re.compile(r"[A-Za-z0-9+/=]{4,}\s*$")  # its last line may be short
# A line that says that the next one holds a value: an option's name in a list of arguments, a "name" before its
# "value", a YAML block. The next line, then.
AWAITS = re.compile(
    rf"(?i)^\s*(?:-\s+)?(?:[\"']--?[\w-]*{NAME}[\"']|(?:-\s+)?--[\w-]*{NAME}"
    rf"|[\"']?(?:name|key)[\"']?\s*:\s*[\"']?[\w.-]*{NAME}[\"']?),?\s*$"
)
AWAITED = re.compile(
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


class Scrubber:
    """Takes the given secrets, in each way they may be written, and what looks like one, out of texts.

    :param after: what is done to each line last, for example pseudonyms.
    """

    def __init__(self, secrets: Iterable[str] = (), after: Callable[[str], str] = lambda line: line) -> None:
        self.known = Known(secrets)
        self.after = after

    def __repr__(self) -> str:
        return f"<Scrubber {self.known!r}, {len(RULES)} rules>"

    def scrub(self, text: str) -> str:
        """Return the text without secrets; lines stay lines."""
        stream = self.stream()
        return stream.feed(text) + stream.end()

    def stream(self) -> Stream:
        """Return a new text's scrubbing, piece by piece."""
        return Stream(self)

    def finds(self, text: str) -> bool:
        """Tell whether a known secret still stands in the text."""
        return self.known.finds(text)


class Stream:
    """One text being scrubbed: what is fed comes back clean, the last line with the next piece or the end."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._rest = ""
        self._begun = False
        self._in_key = 0  # lines that may still be of a private key
        self._awaited = False
        self._hints = HINTS
        self._block: int | None = None  # the indentation of a YAML name whose block is a secret

    def feed(self, text: str) -> str:
        """Take more of the text; return what of it is clean by now."""
        text = self._rest + text
        cut = text.rfind("\n") + 1
        if not cut and len(text) > LONGEST_LINE:
            cut = max(text.rfind(mark, LONGEST_LINE // 2) for mark in " ,;") + 1 or len(text)
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
        text = self._scrubber.known.without(text)
        lines, lowered = text.splitlines(keepends=True), text.lower()
        # most blocks of a log have few hints in them, so most rules need not be thought of line by line
        self._hints = [(hint, rules) for hint, rules in HINTS if hint in lowered]
        if not self._begun:
            self._begun = True
            lines = _without_rest(lines)
        return "".join(self._scrubber.after(self._line(line)) for line in lines)

    def _without_wrapped(self, lines: list[str]) -> list[str]:
        """Take out base64 of several lines that holds a secret: in none of them it stands whole."""
        begin = 0
        while begin < len(lines):
            words = _wrapped(lines[begin : begin + LONGEST_PEM])
            if len(words) > 1 and (self._scrubber.known.finds("".join(words)) or _holds_secret("".join(words))):
                for at, word in enumerate(words, begin):
                    lines[at] = lines[at].replace(word, GONE)
            begin += max(1, len(words))
        return lines

    def _line(self, line: str) -> str:
        if "-----" in line:
            line = PEM_WHOLE.sub(rf"\1{GONE}\3", line)
        if self._in_key and PEM_END.search(line):
            self._in_key = 0
            body, _, rest = line.partition("-----END")
            return PEM_BODY.sub(GONE, body) + "-----END" + _by_rules(rest, self._hints)
        if self._in_key:
            self._in_key -= 1
            return PEM_BODY.sub(GONE + "\n", line)
        if "-----BEGIN" in line and (begin := _open_key(line)) is not None:
            self._in_key = LONGEST_PEM
            rest = line[begin:].strip()
            return _by_rules(line[:begin], self._hints) + (GONE if rest else "") + "\n"
        return self._value(line)

    def _value(self, line: str) -> str:
        """Scrub a line by the rules; it may be the value that the line before spoke of."""
        prefix, line = _without_prefix(line)
        return prefix + self._message(line)

    def _message(self, line: str) -> str:
        if self._block is not None:
            indented = len(line) - len(line.lstrip())
            if not line.strip() or indented > self._block:
                return line if GONE in line or not line.strip() else line[:indented] + GONE + "\n"
            self._block = None
        awaited, self._awaited = self._awaited, AWAITS.match(line) is not None
        if awaited and GONE not in line and not self._awaited:
            line = AWAITED.sub(rf"\g<1>\g<2>{GONE}\g<4>", line)
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
    while first and end - first < LONGEST_PEM and (PEM_LAST if first == end else PEM_BODY).search(lines[first - 1]):
        first -= 1
    rest = [PEM_LAST.sub(GONE + "\n", line) for line in lines[first:end]]
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
    """Return a word of base64 as it is, or a mark when what it holds would be scrubbed."""
    return GONE if _holds_secret(match[0]) else match[0]


def _holds_secret(base64_text: str) -> bool:
    """Tell whether it is base64 of a text that would be scrubbed."""
    word = base64_text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(word + "=" * (-len(word) % 4))
    except (ValueError, binascii.Error):
        return False
    if not READABLE.issuperset(raw[:64]):
        return False
    text = raw.decode("utf-8", errors="replace")
    return "".join(_lines_scrubbed(text)) != text


def _lines_scrubbed(text: str) -> Iterator[str]:
    stream = Stream(_RULES_ONLY)
    yield stream.feed(text)
    yield stream.end()


_RULES_ONLY = Scrubber()
