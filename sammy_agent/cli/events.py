# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent events`: what happened on this node, oldest first, from the file: also when the agent is dead.

Exit statuses: 0 something was shown, 1 it cannot be read, 2 the command line is wrong, 3 there is no such event.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cc_sammy.common import terminal
from sammy_agent.base.errors import AgentError, Code, StoreUnusable
from sammy_agent.base.events.kinds import LEVELS
from sammy_agent.base.runtime import clock, timespec
from sammy_agent.base.runtime.clock import this_boot
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore

LIMIT, LIMIT_WITHIN, LIMIT_FOLLOWED = 100, 10_000, 10
POLL_INTERVAL = 0.5  # seconds, of --follow
Event = dict[str, Any]


class AskedWrong(AgentError):
    """The command line asks for what there cannot be."""

    code = Code.ASKED_WRONG


def run(arguments: argparse.Namespace) -> int:
    """Show the events; return the exit status. AgentError when they cannot be read."""
    boot = this_boot()
    store = EventStore(Paths(arguments.root).events, boot_id=boot, read_only=True)
    try:
        query = _query(arguments, boot)
    except AgentError as error:
        print(f"sammy-agent: {error}", file=sys.stderr)
        return 2
    try:
        return _follow(store, query, arguments) if arguments.follow else _show(store, query, arguments)
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{store.path} cannot be read: {error}",
            "A corrupt one is moved aside and recreated by the running agent: systemctl restart sammy-agent",
        ) from error
    except KeyboardInterrupt:
        return 0  # it is how one ends --follow


def _query(arguments: argparse.Namespace, boot: str) -> EventQuery:
    if arguments.level is not None and arguments.level not in LEVELS:
        raise AskedWrong(f"invalid level {arguments.level!r}", f"Choose from {', '.join(LEVELS)}")
    limit = LIMIT_FOLLOWED if arguments.follow else LIMIT_WITHIN if arguments.since or arguments.run else LIMIT
    if arguments.limit is not None:
        if not arguments.limit.isdecimal() or not 1 <= int(arguments.limit) <= 10**9:
            raise AskedWrong(f"invalid --limit {arguments.limit!r}", "Use a number of events, at least 1")
        limit = int(arguments.limit)
    return EventQuery(
        limit=limit,
        level=arguments.level,
        type_prefix=arguments.type or "",
        run_id=arguments.run or "",
        since=timespec.parse(arguments.since, clock.now()) if arguments.since else None,
        boot_id=boot,
    )


def _show(store: EventStore, query: EventQuery, arguments: argparse.Namespace) -> int:
    # one more than is shown tells whether there are older ones
    found = store.events(replace(query, limit=query.limit + 1))
    events = found[: query.limit][::-1]
    if arguments.json:
        print(json.dumps(events, indent=1))
    else:
        printer = _Printer(query.boot_id)
        for event in sorted(events, key=printer.time_of):  # boot steps are recorded when their record is read
            print("\n".join(printer.lines(event)))
    if not events:
        if not arguments.json:
            print("sammy-agent: no such event" if _any(store) else _none_yet(store), file=sys.stderr)
        return 3
    if len(found) > query.limit and sys.stderr.isatty():
        print(f"(the newest {query.limit}; there are older ones: --limit {query.limit * 10})", file=sys.stderr)
    return 0


def _any(store: EventStore) -> bool:
    return bool(store.events(EventQuery(1)))


def _none_yet(store: EventStore) -> str:
    return f"sammy-agent: no events yet in {store.path}. Is the agent running? systemctl status sammy-agent"


def _follow(store: EventStore, query: EventQuery, arguments: argparse.Namespace) -> int:
    """Show the newest, then what follows; ends by an interrupt only."""
    events = store.events(query)[::-1]
    printer = _Printer(query.boot_id)
    last = max((event["seq"] for event in store.events(EventQuery(1))), default=0)
    while True:
        for event in events:
            print(json.dumps(event) if arguments.json else "\n".join(printer.lines(event)))
            last = max(last, event["seq"])
        sys.stdout.flush()
        time.sleep(POLL_INTERVAL)
        events = store.events(replace(query, after_seq=last, limit=1000))


class _Printer:
    """Events as lines, with a line between two boots."""

    def __init__(self, boot: str) -> None:
        self._boot, self._now = boot, clock.now()
        self._last: str | None = None

    def time_of(self, event: Event) -> int:
        """Return when it was, microseconds since the epoch; times of this boot by the clock as it is now."""
        here = event["boot_id"] == self._boot
        return self._now.to_wall_clock(event["created_at"], event["boottime_us"], same_boot=here)

    def lines(self, event: Event) -> Iterator[str]:
        """Yield the event's line, after one that introduces another boot."""
        here = event["boot_id"] == self._boot
        boot, kind, message = map(
            terminal.escape_control_characters, (event["boot_id"], event["type"], event["message"])
        )
        if event["boot_id"] != self._last:
            if self._last is not None or not here:
                yield f"-- boot {boot}{' (this one)' if here else ''} --"
            self._last = event["boot_id"]
        at = terminal.format_time(self.time_of(event))
        took = "" if event["duration_us"] is None or not event["step"] else f" ({event['duration_us'] / 1e6:.3f} s)"
        words = f"{at}  {event['level']:<5}  {kind:<24}  {message}{took}"
        yield terminal.colorize(words, event["level"])
