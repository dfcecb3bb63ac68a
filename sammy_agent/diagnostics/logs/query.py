# SPDX-License-Identifier: Apache-2.0
"""The query of the logs, parsed and validated as a whole, so that every mistake is reported at once.

Pure. Names and limits are those of the wire; the command line uses the same ones.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime import clock, timespec
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.diagnostics.logs.entry import LEVELS

CONTAINER = re.compile(r"[A-Za-z0-9_.*?-]{1,255}")
CURSOR = re.compile(r"[A-Za-z0-9=;_-]{1,512}")
PARAMETERS = ("source", "level", "container", "since", "until", "search", "limit", "cursor")
SOURCES = ("all", "agent", "sammy", "systemd", "cloud-init", "docker")
LIMIT, MAX_LIMIT = 200, 1000  # entries of one page: default and maximum
MAX_SEARCH_CHARACTERS = 1000  # characters


class QueryInvalid(AgentError):
    """The query is invalid; `problems` has every wrong parameter."""

    code = Code.LOGS_QUERY_INVALID

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class Query:
    """A valid query. Times are microseconds since 1970; an empty text is no restriction."""

    source: str = "all"
    level: str = "debug"
    container: str = ""
    since: int | None = None
    until: int | None = None
    search: str = ""
    limit: int = LIMIT
    cursor: bytes = b""
    searchable_text: Callable[[str], str] | None = None  # returns the part of a message that may be searched

    def includes(self, source: str) -> bool:
        """Tell whether entries of a source may be in the result."""
        return self.source in ("all", source) and (not self.container or source == "docker")

    def includes_level(self, level: str) -> bool:
        """Tell whether entries of a level may be in the result."""
        return LEVELS.index(level) >= LEVELS.index(self.level)

    def includes_container(self, name: str, identity: str = "") -> bool:
        """Tell whether a container is asked for, by its name, a pattern of it, or the beginning of its id."""
        pattern = self.container
        if not pattern or fnmatch.fnmatchcase(name, pattern):
            return True
        return self.is_by_id and identity.startswith(pattern)

    @property
    def is_by_id(self) -> bool:
        """Whether the container asked for may be named by its id."""
        return re.fullmatch("[0-9a-f]{12,64}", self.container) is not None

    def matches(self, text: str) -> bool:
        """Tell whether a message contains the search text, in its searchable part."""
        wanted = self.search.casefold()
        if not wanted:
            return True
        return wanted in text.casefold() and (
            self.searchable_text is None or wanted in self.searchable_text(text).casefold()
        )


def parse(asked: Mapping[str, str], *, now: Timestamp | None = None) -> Query:
    """Parse the parameters; unknown ones are ignored, empty ones are absent.

    :param now: what -5m and today are counted from.
    :raises QueryInvalid: naming each wrong parameter, its value, and what is allowed.
    """
    at = now or clock.now()
    problems: list[str] = []
    found: dict[str, Any] = {}
    readers: dict[str, Callable[[str], Any]] = {
        "source": lambda text: _one_of(text, SOURCES),
        "level": lambda text: _one_of(text, LEVELS),
        "container": _container,
        "since": lambda text: _time(text, at),
        "until": lambda text: _time(text, at),
        "search": _search,
        "limit": _limit,
        "cursor": _cursor,
    }
    for name, reader in readers.items():
        if text := asked.get(name, ""):
            try:
                found[name] = reader(text)
            except ValueError as error:
                shown = text if len(text) <= 60 else text[:60] + "…"
                problems.append(f"{name} is {shown!r}, but must be {error}")
    problems += _cross_checks(found)
    if problems:
        raise QueryInvalid(problems)
    return Query(**found)


def _cross_checks(found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("container") and found.get("source", "all") not in ("all", "docker"):
        yield f"container goes with source docker or all, not with {found['source']}"
    if found.get("since") is not None and found.get("until") is not None and found["since"] > found["until"]:
        yield "since is later than until: it must be the earlier one"


def _one_of(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ValueError(f"one of {', '.join(allowed)}")
    return text


def _container(text: str) -> str:
    if not CONTAINER.fullmatch(text):
        raise ValueError(
            "a container's name, in which * and ? stand for any text and any letter, 255 characters at most"
        )
    return text


def _search(text: str) -> str:
    if len(text) > MAX_SEARCH_CHARACTERS:
        raise ValueError(f"{MAX_SEARCH_CHARACTERS} characters at most")
    return text


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"a number from 1 to {MAX_LIMIT}")
    return int(text)


def _cursor(text: str) -> bytes:
    with contextlib.suppress(binascii.Error):
        if CURSOR.fullmatch(text):
            return base64.b64decode(text, altchars=b"-_", validate=True)
    raise ValueError("a nextCursor of an earlier answer, unchanged")


def _time(text: str, now: Timestamp) -> int:
    """Return the moment that a text names, in microseconds since 1970. ValueError says what is allowed."""
    try:
        return timespec.parse(text, now).wall
    except timespec.TimeInvalid:
        raise ValueError(timespec.TIMES) from None
