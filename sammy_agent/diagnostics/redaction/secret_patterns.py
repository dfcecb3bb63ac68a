# SPDX-License-Identifier: Apache-2.0
"""What looks like a secret and is removed from debug package and logs; this node's own ones are in `node_secrets`.

A rule runs only on lines with one of its hints, which keeps megabytes of journal cheap.

A name with a value is told from a sentence about it: "token expired" stays, `token=…` goes. Each rule
has its examples in the tests, and a corpus of lines that must survive is held against all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sammy_agent.diagnostics.redaction.secret_matcher import REDACTED


@dataclass(frozen=True)
class RedactionRule:
    """What looks like a secret: a line with one of `hints` (lower case) is searched for `pattern`."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    by: str


def _rule(hints: str, by: str, *pattern: str) -> RedactionRule:
    return RedactionRule(tuple(hints.split()), re.compile("".join(pattern)), by)


# Names whose value is always a secret; NAME adds those that are used for other things, too.
HARD = (
    r"(?:pass(?:word|wd|phrase|code)|secret|(?:api|private|access|secret|signing|encryption|account|master|shared|preshared)"
    r"[_.-]?key|connection[_.-]?string|(?<![a-z])psk)"
)
NAME = rf"(?:{HARD}|pass|(?<![a-z])pwd|token|credentials?|auth)"
NAME_HINTS = "pass secret token key credential auth pwd psk string"
# No value but its absence, a structure, a path or a variable's name.
_ABSENT = (
    r"null|none|nil|true|false|yes|no|on|off|unset|missing|ok|expired|invalid|required|disabled|enabled|redacted"
    r"|<[\w -]+>|\*+|x{3,}"
)
_ELSEWHERE = (
    r"/(?:etc|var|run|root|home|usr|tmp|opt|srv|dev|proc|sys|mnt|lib|bin|sbin|boot|snap)\b"
    r"|\$\{?[A-Z_][A-Z0-9_]*\}?(?:[\s\"'/:,;]|$)|[\[{(]\s*(?:$|[\[{\"'\]}]|\w+:)|%[a-zA-Z](?:\W|$)|%\(|\{\{"
)
# behind it a bracket closes what the whole stands in, unless the value goes on
_OVER = r"(?:[\s,;&\"']|[}\])]+(?:[\s,;.:&\"']|$)|$)"
_VALUE = rf"(?!(?:{_ABSENT}){_OVER}|{_ELSEWHERE})"
_ONCE = rf"(?!{re.escape(REDACTED)})"
_RANDOM = r"(?=[^\s\"',;]*\d)(?=[^\s\"',;]*[A-Za-z])"  # a digit and a letter in the next word
# to the next blank or quote, or to the next NAME= of a list
_WORD = r"(?:(?![;,&]\s*[\w.-]+=)[^\s\"'])+"
_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"

RULES = (
    # "NAME=value with blanks" as in docker inspect and in units
    _rule(
        NAME_HINTS,
        rf"\g<1>{REDACTED}\g<2>",
        rf"(?i)((\\*[\"'])[\w.-]{{0,80}}{NAME}(?:_base64|_b64)?=)(?!\2){_ONCE}(?:(?!(?<!\\)\2).)+(?<!\\)\2",
    ),
    # in a query
    _rule(
        "= %3d",
        rf"\g<1>{REDACTED}",
        rf"(?i)((?:[?&]|%3f|%26)(?:[\w.-]{{0,80}}{NAME}|(?:x-(?:amz|goog)-)?(?:sig|signature|credential)|jwt|sid|key)(?:=|%3d))",
        rf"{_ONCE}(?![a-z]{{1,12}}\b)[^\s&\"'<>\\]+",
    ),
    # NAME=value, as in environments and arguments: whatever the value is
    _rule(
        NAME_HINTS,
        rf"\g<1>{REDACTED}",
        rf"(?i)(\b(?!LoadCredential)[\w.-]{{0,80}}{NAME}(?:_base64|_b64)?(?:=|%3d))(?!\d{{1,4}}{_OVER}){_VALUE}{_ONCE}",
        rf"({_QUOTED}|{_WORD})",
    ),
    # any other NAME_KEY= where the value looks like one
    _rule(
        "key=",
        rf"\g<1>{REDACTED}",
        r"(?i)(\b(?![\w.-]{0,80}(?:gpg|pub|public|primary|foreign|cache|sort|host)[_-]?key)[\w.-]{0,80}[_-]key=)",
        rf"{_ONCE}{_RANDOM}[\w.~+/=:-]{{12,}}",
    ),
    # "name": "value" in JSON, also escaped inside a text; and where the value is a number
    _rule(
        NAME_HINTS,
        rf"\g<1>\g<3>{REDACTED}\g<3>",
        rf"(?i)((\\*[\"'])[\w.@ -]{{0,80}}{NAME}\2\s*[:=]\s*)(\\*[\"']){_ONCE}(?!(?:{_ABSENT}|)\3).*?(?<!\\)\3",
    ),
    _rule(NAME_HINTS, rf"\g<1>{REDACTED}", rf"(?i)([\"'][\w.@ -]{{0,80}}{HARD}[\"']\s*:\s*)-?\d{{4,}}"),
    # {"name": "NAME", "value": "value"} as in orchestrators' files
    _rule(
        "value",
        rf"\g<1>{REDACTED}",
        rf"(?i)(\\*[\"'](?:name|key)\\*[\"']\s*:\s*\\*[\"'][\w.-]{{0,80}}{NAME}\\*[\"']\s*,\s*",
        r"\\*[\"']value\\*[\"']\s*:\s*\\*[\"'])",
        rf"{_ONCE}[^\"']+",
    ),
    # an argument and the next one; `{NAME}` in the option's name
    _rule(
        NAME_HINTS,
        rf"\g<1>{REDACTED}",
        rf"(?i)((?:^|[\s\"'\[])--?[\w-]{{0,80}}{NAME}(?:\\*[\"'],\s*\\*[\"']|\s+))",
        rf"(?!-|\\|\w+://){_VALUE}{_ONCE}({_QUOTED}|[^\s\"',]+)",
    ),
    # name: value, a whole line of YAML, or in a message what is no plain word
    _rule(
        "pass secret key psk string",
        rf"\g<1>{REDACTED}",
        rf"(?i)(^\s*(?:-\s+)?[\w.-]{{0,80}}{HARD}(?:[_-]base)?\s*:\s+){_VALUE}{_ONCE}",
        rf"(?![|>]\s*$|[A-Z][a-z]+ [a-z]+\s*$)({_QUOTED}|[^\r\n]{{3,}}?(?=\s*$|\s+#))",
    ),
    _rule(
        "pass secret key psk string",
        rf"\g<1>{REDACTED}",
        rf"(?i:(\b[\w.-]{{0,80}}{HARD}\s*:\s+){_VALUE}{_ONCE})",
        rf"(?=[^\s]*[\d!@#$%^&+=~]|[^\s]*[a-z][A-Z]|[^\s]*[A-Z]{{2,}}[a-z])({_QUOTED}|[^\s,;\"']{{4,}})",
    ),
    # after the word token only what no plain word looks like
    _rule(
        "token auth",
        rf"\g<1>{REDACTED}",
        rf"(?i)(\b[\w.-]{{0,80}}(?:token|auth)\s*:\s+[\"']?){_VALUE}{_RANDOM}([\w.~+/=-]{{12,}})",
    ),
    # name = value as in INI files
    _rule(
        NAME_HINTS,
        rf"\g<1>{REDACTED}",
        rf"(?i)(\b[\w.-]{{0,80}}{NAME}\s+=\s+|\b[\w.-]{{0,80}}{NAME}\s+=(?=\S)){_VALUE}{_ONCE}({_QUOTED}|[^\s\"',;]{{4,}})",
    ),
    # said in a sentence, where it can be nothing else
    _rule(
        "pass secret token key",
        rf"\g<1>{REDACTED}",
        r"(?i)(\b(?:password|passwd|passphrase|secret|token|api[ _-]?key)\s+",
        r"(?:is\s+|was\s+|to\s+|of\s+|from\s+)?[\"'`]?)",
        rf"{_ONCE}(?!\d+\b){_RANDOM}(?=[^\s]*[A-Za-z]\d|[^\s]*\d[A-Za-z])(?![\w.-]*[/:])[\w.~+=!@#$%^&*-]{{10,}}",
    ),
    _rule("login", rf"\g<1>{REDACTED}", rf"(\blogin\s+\S+\s+password\s+){_ONCE}\S+"),  # .netrc
    _rule("</", rf"\g<1>{REDACTED}\g<2>", rf"(?i)(<[\w:.-]{{0,80}}{NAME}>){_ONCE}[^<]+(</)"),
    # headers
    _rule(
        "authorization",
        rf"\g<1>\g<2> {REDACTED}",
        rf"(?i)(authorization\\*[\"']?\s*[:=]\s*\\*[\"']?){_ONCE}",
        rf"(?:(bearer|basic|token|digest|negotiate)\s+)?{_ONCE}(?=[^\s\"'\\,]*[\d+/=_.-]|\S{{16}})[^\s\"'\\,]+[^\"'\\\r\n]*",
    ),
    _rule("bearer basic", rf"\g<1> {REDACTED}", r"(?i)\b(bearer|basic)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{12,}"),
    _rule("cookie", rf"\g<1>{REDACTED}", rf"(?i)\b((?:set-)?cookie\\*[\"']?\s*:\s*\\*[\"']?){_ONCE}[^\"'\r\n]+"),
    _rule(
        "key token secret signature",
        rf"\g<1>{REDACTED}",
        r"(?i)\b((?:x-[\w-]*(?:key|token|secret|signature|auth)|[\w]+-(?:api-)?key|(?:private|job|deploy)-token|api-?key)",
        rf"\\*[\"']?\s*:\s+\\*[\"']?){_VALUE}{_ONCE}{_RANDOM}[^\s\"',;\\]{{8,}}",
    ),
    # URLs with a user, a password, or a path that opens something
    _rule("://", rf"\g<1>{REDACTED}@", rf"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?!git@){_ONCE}[^\s/@:\"'<>]*:[^\s/\"'<>]*@"),
    _rule("://", rf"\g<1>{REDACTED}@", rf"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?!git@){_ONCE}[^\s/@:\"'<>?#]+@"),
    _rule(
        "postgres mysql mariadb mongodb redis amqp",
        rf"\g<1>{REDACTED}@",
        rf"(?i)(\b(?:postgres\w*|mysql|mariadb|mongodb|rediss?|amqps?)(?:\+\w+)?://){_ONCE}[^\s:\"'<>]{{0,200}}:[^\s\"'<>]{{0,500}}@",
    ),
    _rule(
        "hooks webhook telegram",
        rf"\g<1>{REDACTED}",
        r"(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/\d+/"
        r"|api\.telegram\.org/bot|webhook\.office\.com/)[^\s\"'<>]{8,}",
    ),
    # arguments of well-known programs
    _rule(
        "curl wget",
        rf"\g<1>{REDACTED}",
        rf"(\b(?:curl|wget)\b.{{0,2000}}?\s(?:-u\s*|--user[= ]|--proxy-user[= ])[\"']?[^\s:\"']*:){_ONCE}[^\s\"']+",
    ),
    _rule("sshpass", rf"\g<1>{REDACTED}", rf"(\bsshpass\s+-p\s*){_ONCE}({_QUOTED}|\S+)"),
    _rule(
        "mysql mariadb",
        rf"\g<1>{REDACTED}",
        rf"(\b(?:mysql\w*|mariadb[\w-]*)\s.{{0,2000}}?\s-p)(?!ort\b)(?=\S){_ONCE}({_QUOTED}|\S+)",
    ),
    _rule(
        "docker podman",
        rf"\g<1>{REDACTED}",
        rf"(\b(?:docker|podman)\s+login\b.{{0,2000}}?\s-p\s*){_ONCE}({_QUOTED}|\S+)",
    ),
    _rule("redis-cli", rf"\g<1>{REDACTED}", rf"(\bredis-cli\b.{{0,2000}}?\s-a\s+){_ONCE}({_QUOTED}|\S+)"),
    _rule("pass:", rf"\g<1>{REDACTED}", rf"(-pass(?:in|out)?\s+pass:|\s-k\s+pass:){_ONCE}\S+"),
    _rule("chpasswd", rf"\g<1>{REDACTED}\g<2>", rf"([\w.-]+:){_ONCE}[^\s\"'|]+([\"']?\s*\|\s*(?:sudo\s+)?chpasswd)"),
    # tokens that say themselves what they are
    _rule("eyj", REDACTED, r"\beyJ[\w-]{6,}(?:\.[\w-]{6,}\.[\w-]*)(?:\.[\w-]*){0,2}"),
    _rule("gh", REDACTED, r"\b(?:gh[pousr]_|github_pat_)\w{16,}"),
    _rule(
        "gl xox xapp- pypi-",
        REDACTED,
        r"\b(?:gl(?:pat|dt|rt|ft|soat|cbt|ptt|agent|oas)|xox[abeoprs]|xapp"
        r"|pypi)-[\w.-]{8,}",
    ),
    _rule("npm_ _v1_ hf_ rubygems_", REDACTED, r"\b(?:npm|do[opr]_v1|hf|rubygems)_\w{16,}"),
    _rule(
        "sk- sk_ rk_ whsec_ gsk_ xai-",
        REDACTED,
        r"\b(?:(?:sk|xai)-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}|(?:whsec"
        r"|gsk)_[\w+/=]{16,})",
    ),
    _rule("akia asia", REDACTED, r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _rule(
        "aws",
        rf"\g<1>{REDACTED}",
        rf"(?i)(\baws\w*(?:secret|key)\w*\W{{1,6}}){_ONCE}[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+])",
    ),
    _rule("aiza ya29. gocspx-", REDACTED, r"\b(?:AIza|ya29\.|GOCSPX-)[\w-]{20,}"),
    _rule("age-secret-key-", REDACTED, r"\bAGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    _rule(
        "sg. hvs. hvb. dp. atatt3",
        REDACTED,
        r"\b(?:SG\.[\w-]{16,}\.[\w-]{16,}|hv[sb]\.[\w-]{20,}|dp\.[a-z]+\.\w{20,}"
        r"|ATATT3[\w=-]{20,})",
    ),
    _rule(
        "dckr_ tskey- lin_ ntn_ shp nrak- pmak-",
        REDACTED,
        r"\b(?:dckr_pat_|tskey-|lin_api_|ntn_|shp(?:at|ca|pa|ss)_|NRAK-"
        r"|PMAK-)[\w-]{16,}",
    ),
    _rule(":aa", REDACTED, r"\b\d{8,10}:AA[\w-]{30,}"),
    # hashes of passwords, as in shadow files and user-data
    _rule(
        "$1$ $2 $5$ $6$ $y$ $gy$ $7$ $apr1$ $argon2",
        REDACTED,
        r"\$(?:1|2[abxy]?|5|6|7|y|gy|apr1|argon2(?:id?|d))\$[^\s:\"']{8,}",
    ),
)  # fmt: skip

# Each hint with the rules it is of, as bits.
Hints = list[tuple[str, int]]
HINTS: Hints = [
    (hint, sum(1 << number for number, rule in enumerate(RULES) if hint in rule.hints))
    for hint in sorted({hint for rule in RULES for hint in rule.hints})
]
