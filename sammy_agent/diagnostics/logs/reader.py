# SPDX-License-Identifier: Apache-2.0
"""Reads this node's logs: one page backwards from now, or following from now on."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sammy_agent.base.errors import AgentError
from sammy_agent.diagnostics.logs import container_logs, merge
from sammy_agent.diagnostics.logs.cloud_init import LOG, OUTPUT, CloudInit
from sammy_agent.diagnostics.logs.entry import Entry, Source, Tail
from sammy_agent.diagnostics.logs.merge import Page
from sammy_agent.diagnostics.logs.query import Query

if TYPE_CHECKING:
    from sammy_agent.diagnostics.redaction.redactor import Redactor

CATCH_UP = 100
TICK = 0.5  # seconds between two looks at what cannot be waited for


def sources(query: Query, root: str = "") -> list[Source]:
    """Return the sources that the query includes. AgentError where python3-systemd is missing.

    :param root: put before the paths of files; Docker is asked only on this machine.
    """
    found: list[Source] = []
    if query.includes("cloud-init"):
        found.append(CloudInit(LOG, query, tag=2, line_based=False, root=root))
        found.append(CloudInit(OUTPUT, query, tag=3, line_based=True, root=root))
    if any(query.includes(name) for name in ("agent", "sammy", "systemd", "docker")):
        found.append(_journal(query, root))
    if query.includes("docker") and not root and container_logs.is_available():
        found.append(container_logs.ContainerLogs(query))
    return found


def _journal(query: Query, root: str) -> Source:
    try:
        from sammy_agent.diagnostics.logs.journal import Journal
    except ImportError as error:
        raise AgentError("the journal cannot be read: there is no module systemd", "Install python3-systemd") from error
    return Journal(query, root)


def page(query: Query, root: str = "", *, redactor: Redactor | None = None, seconds: float = merge.SECONDS) -> Page:
    """Return a page, newest first. QueryInvalid when its cursor is none.

    :param redactor: takes secrets out, for whatever leaves the node.
    :param seconds: for reading; it may then hold less than was asked for, with a cursor to go on.
    """
    if redactor is None:
        return merge.read(sources(query, root), query, seconds=seconds)
    from sammy_agent.diagnostics.logs import (
        redaction,  # its rules cost milliseconds, which a terminal need not wait for
    )

    query = redaction.restrict_search(query, redactor)
    found = merge.read(sources(query, root), query, seconds=seconds)
    entries = redaction.EntryRedactor(redactor).redact(found.entries[::-1])[::-1]
    return replace(found, entries=entries, notes=[redactor.redact(note) for note in found.notes])


def whole_page(
    query: Query, root: str = "", *, redactor: Redactor | None = None, seconds: float = merge.SECONDS
) -> Page:
    """Return a page with all that was asked for, however long the search takes; `seconds` is for one turn of it."""
    found = page(query, root, redactor=redactor, seconds=seconds)
    while found.cursor and len(found.entries) < query.limit:
        left = query.limit - len(found.entries)
        further = replace(query, limit=left, cursor=merge.decoded(found.cursor))
        more = page(further, root, redactor=redactor, seconds=seconds)
        found = Page([*found.entries, *more.entries], more.cursor, [*dict.fromkeys([*found.notes, *more.notes])])
    return found


def follow(
    query: Query,
    root: str = "",
    *,
    catch_up: int = CATCH_UP,
    redactor: Redactor | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Iterator[list[Entry]]:
    """Yield the newest `catch_up` entries, oldest first, then what comes, for ever: a list at least every tick.

    An empty list lets the caller see whether anybody still listens. Nothing is read ahead of the caller: one that is
    slow is served later, not more.

    :param tell: called with what could not be read at the start.
    """
    clean: Callable[[Sequence[Entry]], list[Entry]] = list
    if redactor is not None:
        from sammy_agent.diagnostics.logs import redaction

        query, clean = redaction.restrict_search(query, redactor), redaction.EntryRedactor(redactor).redact
    asked = sources(query, root)
    ends = {source.tag: source.end_position() for source in asked}
    with contextlib.ExitStack() as stack:
        tails = []
        for source in asked:
            tails.append(source.tail(ends[source.tag]))
            stack.callback(tails[-1].close)
        before = merge.read(asked, replace(query, limit=catch_up), start=ends)
        for note in before.notes:
            tell(note)
        yield clean(before.entries[::-1])
        while True:
            entries = [entry for tail in tails for entry in tail.poll()]
            yield clean(sorted(entries, key=lambda entry: entry.time))
            if not entries:
                _wait(tails)


def _wait(tails: Sequence[Tail]) -> None:
    """Wait for news, not longer than a tick."""
    poll = select.poll()
    numbers = [number for tail in tails for number in tail.filenos()]
    for number in numbers:
        poll.register(number, select.POLLIN)
    poll.poll(TICK * 1000)
