# SPDX-License-Identifier: Apache-2.0
"""A mirror of the distribution's archive for one run: apt reads a copy of the sources, /etc/apt stays unchanged.

The copy has the distribution's own entries pointed to the mirror, whatever their URI (a cloud's image may name a list
of mirrors); all others stay, ours too. apt finds the copy by APT_CONFIG and keeps the mirror's lists apart, so that the
machine's own lists are unchanged afterwards.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping

from cc_sammy.common import files
from cc_sammy.config import Config

FOLDER = "/run/sammy/apt"
CHOICE, CONF, PARTS = f"{FOLDER}/mirror.json", f"{FOLDER}/apt.conf", f"{FOLDER}/sources.list.d"
LISTS, OWN_LISTS = "/var/lib/apt/lists", "/var/lib/apt/sammy-lists"

POCKETS = ("", "-updates", "-security", "-backports", "-proposed", "-proposed-updates")
KEYRING = re.compile(r"(^|/)(debian|ubuntu)-archive-[\w.-]+$")
# deb [options] uri suite components
LINE = re.compile(
    r"^(?P<type>deb(?:-src)?\s+)(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)(?P<gap>\s+)(?P<suite>\S+)(?P<rest>.*)$"
)
FIELD = re.compile(r"^(?P<name>[A-Za-z][\w-]*):[ \t]*(?P<value>.*(?:\n[ \t].*)*)", re.MULTILINE)


def select(config: Config) -> None:
    """Store which mirrors this run uses, for every later call of apt. OSError when that cannot be written."""
    wanted = {"archive": config.packages.mirror, "security": config.packages.security_mirror}
    if any(wanted.values()):
        files.write_text(CHOICE, json.dumps(wanted) + "\n")
    else:
        files.remove(CHOICE)


def lists() -> str:
    """Return the directory where apt keeps its lists in this run."""
    return OWN_LISTS if os.path.exists(CHOICE) else LISTS


def environment() -> dict[str, str]:
    """Return the environment variables of apt in this run, after updating the copy of the sources."""
    chosen = files.read_text(CHOICE)
    if chosen is None:
        return {}
    mirrors = json.loads(chosen)
    copies = {f"{PARTS}/{os.path.basename(path)}": path for path in _sources()}
    for stale in set(glob.glob(f"{PARTS}/*")) - set(copies):
        files.remove(stale)
    for copy, path in copies.items():
        files.write_text(copy, rewrite_sources(path, files.read_text(path) or "", _codename(), mirrors))
    settings = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": PARTS, "Dir::State::lists": OWN_LISTS}
    files.write_text(CONF, "".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return {"APT_CONFIG": CONF}


def _sources() -> Iterator[str]:
    if os.path.exists("/etc/apt/sources.list"):
        yield "/etc/apt/sources.list"
    for kind in ("list", "sources"):
        yield from sorted(glob.glob(f"/etc/apt/sources.list.d/*.{kind}"))


def _codename() -> str:
    found = re.search(r'^VERSION_CODENAME="?(\w+)', files.read_text("/etc/os-release") or "", re.MULTILINE)
    return found.group(1) if found else "unknown"


def rewrite_sources(path: str, text: str, codename: str, mirrors: Mapping[str, str | None]) -> str:
    """Return a source file's text with the distribution's own entries pointed to the mirrors.

    :param mirrors: "archive", and "security" for the suites of that name; None leaves an entry where it is.
    """
    if path.endswith(".sources"):
        stanzas = re.split(r"\n[ \t]*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
        return "\n\n".join(part for stanza in stanzas for part in _stanza(stanza.strip("\n"), codename, mirrors)) + "\n"
    return "".join(_line(line, codename, mirrors) + "\n" for line in text.splitlines())


def _line(line: str, codename: str, mirrors: Mapping[str, str | None]) -> str:
    found = LINE.match(line.strip())
    if found is None:
        return line
    key = re.search(r"signed-by=([^\s\]]+)", found["options"] or "", re.IGNORECASE)
    mirror = _mirror(found["suite"], mirrors)
    if mirror is None or not _is_distribution_entry(found["suite"], key.group(1) if key else None, codename):
        return line
    return f"{found['type']}{found['options'] or ''}{mirror}{found['gap']}{found['suite']}{found['rest']}"


def _stanza(stanza: str, codename: str, mirrors: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the stanza once per mirror of its suites."""
    fields = {found["name"].lower(): found["value"].strip() for found in FIELD.finditer(stanza)}
    suites = fields.get("suites", "").split()
    ours = all(_is_distribution_entry(suite, fields.get("signed-by"), codename) for suite in suites)
    if not suites or not ours:
        yield stanza
        return
    for mirror in dict.fromkeys(_mirror(suite, mirrors) for suite in suites):
        part = " ".join(suite for suite in suites if _mirror(suite, mirrors) == mirror)
        yield _with(stanza, {"suites": part, **({} if mirror is None else {"uris": mirror})})


def _with(stanza: str, values: Mapping[str, str]) -> str:
    """Return the stanza with these values; a key may be part of it, so the rest stays verbatim."""

    def field(found: re.Match[str]) -> str:
        name = found["name"]
        return f"{name}: {values[name.lower()]}" if name.lower() in values else found[0]

    return FIELD.sub(field, stanza)


def _mirror(suite: str, mirrors: Mapping[str, str | None]) -> str | None:
    return mirrors["security" if suite.partition("/")[0].endswith("-security") else "archive"]


def _is_distribution_entry(suite: str, key: str | None, codename: str) -> bool:
    """Decide by the key; an entry without one, by its suite: third-party entries name their key."""
    if key:
        return all(KEYRING.search(path) for path in re.split(r"[\s,]+", key))
    return suite in [f"{codename}{pocket}" for pocket in POCKETS]
