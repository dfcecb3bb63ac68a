# SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of text: first those this node knows, letter by letter, then what looks like one.

Pure: text in, text out. Rules run on a line only where a word of theirs stands in it, which keeps megabytes of journal
cheap. Taking out too much is a fault as well: a log without its reasons helps nobody, so what merely speaks of tokens
stays, and a corpus of such lines is held against the rules.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

GONE = "[scrubbed]"
SHORTEST = 6  # a shorter text is in too many words to be searched for
LONGEST_PEM = 200  # lines; a BEGIN without its END must not swallow the evidence behind it
PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
# The last word of a line inside a key: in a journal a prefix stands before it.
PEM_BODY = re.compile(r"(?:\\n|[A-Za-z0-9+/=]){16,}\s*$")
PEM_LAST = re.compile(r"[A-Za-z0-9+/=]{4,}\s*$")  # its last line may be short


@dataclass(frozen=True)
class Rule:
    """What looks like a secret: a line with one of `hints` (lower case) is searched for `pattern`."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    by: str


def _rule(hints: str, by: str, *pattern: str) -> Rule:
    return Rule(tuple(hints.split()), re.compile("".join(pattern)), by)


_NAME = (
    r"(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|signing[_-]?key"
    r"|credentials?|auth)"
)
_HARD = r"(?:pass(?:word|wd|phrase)|secret|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key)"
# No value but its absence, a structure, a path or a variable's name.
_VALUE = r"(?!(?:null|none|true|false|yes|no|unset|missing|ok|expired)(?:[\s,;\"'}\])]|$)|[\[{(<*/$%])"
_ONCE = rf"(?!{re.escape(GONE)})"
_SPEAKS = "pass secret token key credential auth"

RULES = (
    # NAME=value, as in environments and queries: whatever the value is
    _rule(
        _SPEAKS,
        rf"\g<1>{GONE}",
        rf"(?i)(\b[\w.-]*{_NAME}(?:_base64|_b64)?=){_ONCE}",
        r"(\"[^\"]*\"|'[^']*'|[^\s&;,\"'|)\]}]+)",
    ),
    # "name": "value" in JSON, also escaped inside a text
    _rule(
        _SPEAKS,
        rf"\g<1>\g<2>{GONE}\g<3>",
        rf"(?i)((?:\\*[\"'])[\w. -]*{_NAME}\\*[\"']\s*[:=]\s*)",
        rf"(\\*[\"']){_ONCE}[^\"'\\]+(\\*[\"'])",
    ),
    # name: value, in YAML and messages; after these names everything is one
    _rule(
        "pass secret key",
        rf"\g<1>{GONE}",
        rf"(?i)(\b[\w.-]*{_HARD}\s*:\s+){_VALUE}{_ONCE}(\"[^\"]*\"|'[^']*'|[^\s,;\"']{{4,}})",
    ),
    # after the word token only what no plain word looks like
    _rule(
        "token auth",
        rf"\g<1>{GONE}",
        rf"(?i)(\b[\w.-]*(?:token|auth)\s*:\s+){_VALUE}(?=[^\s]*\d)(?=[^\s]*[a-z])([\w.~+/=-]{{12,}})",
    ),
    _rule(
        "authorization",
        rf"\g<1>\g<2> {GONE}",
        r"(?i)(authorization\\*[\"']?\s*[:=]\s*\\*[\"']?)",
        r"(?:(bearer|basic|token|digest)\s+)?[^\s\"'\\,]+[^\"'\\\r\n]*",
    ),
    _rule("bearer basic", rf"\g<1> {GONE}", r"(?i)\b(bearer|basic)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{12,}"),
    _rule("cookie", rf"\g<1>{GONE}", r"(?i)\b((?:set-)?cookie\s*:\s*)[^\r\n]+"),
    _rule("://", rf"\g<1>{GONE}@", r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@:\"']*:?[^\s/@\"']*@"),
    # tokens that say themselves what they are
    _rule("eyj", GONE, r"\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*"),
    _rule("gh", GONE, r"\b(?:gh[pousr]_|github_pat_)\w{16,}"),
    _rule("glpat- xox pypi-", GONE, r"\b(?:glpat|xox[abeoprs]|pypi)-[\w-]{8,}"),
    _rule("npm_ dop_v1_ hf_", GONE, r"\b(?:npm|dop_v1|hf)_\w{16,}"),
    _rule("sk- sk_ rk_", GONE, r"\b(?:sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,})"),
    _rule("akia asia", GONE, r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _rule("aiza", GONE, r"\bAIza[\w-]{30,}"),
    _rule("age-secret-key-", GONE, r"\bAGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    # hashes of passwords, as in shadow files and user-data
    _rule("$1$ $2 $5$ $6$ $y$", GONE, r"\$(?:1|2[aby]?|5|6|y)\$[^\s:\"']{8,}"),
)


class Scrubber:
    """Takes the given secrets, in each way they may be written, and what looks like one, out of texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets for form in forms(secret)}
        # the longest first, so that what contains another goes whole
        self._known = sorted(known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._known))) if known else None

    def __repr__(self) -> str:
        return f"<Scrubber of {len(self._known)} known forms and {len(RULES)} rules>"

    def scrub(self, text: str) -> str:
        """Return the text without secrets; lines stay lines."""
        if self._pattern is not None:
            text = self._pattern.sub(GONE, text)
        return "".join(_without_keys(_without_rest(text.splitlines(keepends=True))))

    def finds(self, text: str) -> bool:
        """Tell whether a known secret still stands in the text."""
        return self._pattern is not None and self._pattern.search(text) is not None


def forms(secret: str) -> set[str]:
    """Return the ways a secret may be written: plain, for URLs, in JSON, in base64 at each of its three alignments.

    Of base64 only the part that no neighbour changes. A key of several lines counts line by line.
    """
    found: set[str] = set()
    for line in {secret.strip(), *secret.split()}:
        if len(line) < SHORTEST or line.startswith("-----"):
            continue
        found |= {line, quote(line, safe=""), quote(line), json.dumps(line)[1:-1]}
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + line.encode()).decode().rstrip("=")
            inner = text[(0, 2, 3)[shift] : len(text) - 1 if (len(line.encode()) + shift) % 3 else None]
            found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {form for form in found if len(form) >= SHORTEST}


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


def _without_keys(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines scrubbed; inside a private key only what is no part of it stays."""
    left = 0
    for line in lines:
        if left and PEM_END.search(line):
            left = 0
            yield PEM_BODY.sub(GONE, line.partition("-----END")[0]) + "-----END" + line.partition("-----END")[2]
        elif left:
            left -= 1
            yield PEM_BODY.sub(GONE + "\n", line)
        elif (begin := PEM_BEGIN.search(line)) is not None:
            end = PEM_END.search(line, begin.end())
            if end is not None:  # the whole key in one line, its line ends escaped
                yield f"{line[: begin.end()]}{GONE}{line[end.start() :]}"
                continue
            left = LONGEST_PEM
            yield line[: begin.end()] + (GONE if line[begin.end() :].strip() else "") + "\n"
        else:
            yield _by_rules(line)


def _by_rules(line: str) -> str:
    lowered = line.lower()
    for rule in RULES:
        if any(hint in lowered for hint in rule.hints):
            line = rule.pattern.sub(rule.by, line)
    return line
