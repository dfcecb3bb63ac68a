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
from sammy_agent.diagnostics.event_store.query import Wanted
from sammy_agent.diagnostics.event_store.store import EventStore

LIMIT, LIMIT_WITHIN, LIMIT_FOLLOWED = 100, 10_000, 10
LOOK = 0.5  # seconds between two looks of --follow
Event = dict[str, Any]


class AskedWrong(AgentError):
    """The command line asks for what there cannot be."""

    code = Code.ASKED_WRONG


def run(arguments: argparse.Namespace) -> int:
    """Show the events; return the exit status. AgentError when they cannot be read."""
    boot = this_boot()
    store = EventStore(Paths(arguments.root).events, boot_id=boot, read_only=True)
    try:
        wanted = _wanted(arguments, boot)
    except AgentError as error:
        print(f"sammy-agent: {error}", file=sys.stderr)
        return 2
    try:
        return _follow(store, wanted, arguments) if arguments.follow else _show(store, wanted, arguments)
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{store.path} cannot be read: {error}",
            "A corrupt one is moved aside and recreated by the running agent: systemctl restart sammy-agent",
        ) from error
    except KeyboardInterrupt:
        return 0  # it is how one ends --follow


def _wanted(arguments: argparse.Namespace, boot: str) -> Wanted:
    if arguments.level is not None and arguments.level not in LEVELS:
        raise AskedWrong(f"{arguments.level!r} is no level", f"Known are {', '.join(LEVELS)}")
    limit = LIMIT_FOLLOWED if arguments.follow else LIMIT_WITHIN if arguments.since or arguments.run else LIMIT
    if arguments.limit is not None:
        if not arguments.limit.isdecimal() or not 1 <= int(arguments.limit) <= 10**9:
            raise AskedWrong(f"--limit is {arguments.limit!r}", "Write a number of events, at least 1")
        limit = int(arguments.limit)
    return Wanted(
        limit=limit,
        level=arguments.level,
        type_prefix=arguments.type or "",
        run_id=arguments.run or "",
        since=timespec.parse(arguments.since, clock.now()) if arguments.since else None,
        boot_id=boot,
    )


def _show(store: EventStore, wanted: Wanted, arguments: argparse.Namespace) -> int:
    # one more than is shown tells whether there are older ones
    found = store.wanted(replace(wanted, limit=wanted.limit + 1))
    events = found[: wanted.limit][::-1]
    if arguments.json:
        print(json.dumps(events, indent=1))
    else:
        printer = _Printer(wanted.boot_id)
        for event in sorted(events, key=printer.time_of):  # boot steps are told when their record is read
            print("\n".join(printer.lines(event)))
    if not events:
        if not arguments.json:
            print("sammy-agent: there is no such event" if _any(store) else _none_yet(store), file=sys.stderr)
        return 3
    if len(found) > wanted.limit and sys.stderr.isatty():
        print(f"(the newest {wanted.limit}; there are older ones: --limit {wanted.limit * 10})", file=sys.stderr)
    return 0


def _any(store: EventStore) -> bool:
    return bool(store.events(1))


def _none_yet(store: EventStore) -> str:
    return f"sammy-agent: no events are kept yet in {store.path}. Does the agent run? systemctl status sammy-agent"


def _follow(store: EventStore, wanted: Wanted, arguments: argparse.Namespace) -> int:
    """Show the newest, then what comes; ends by an interrupt only."""
    events = store.wanted(wanted)[::-1]
    printer = _Printer(wanted.boot_id)
    last = max((event["seq"] for event in store.events(1)), default=0)
    while True:
        for event in events:
            print(json.dumps(event) if arguments.json else "\n".join(printer.lines(event)))
            last = max(last, event["seq"])
        sys.stdout.flush()
        time.sleep(LOOK)
        events = store.wanted(replace(wanted, after_seq=last, limit=1000))


class _Printer:
    """Events as lines, with a line between two boots."""

    def __init__(self, boot: str) -> None:
        self._boot, self._now = boot, clock.now()
        self._last: str | None = None

    def time_of(self, event: Event) -> int:
        """Return when it was, microseconds since the epoch; times of this boot are told by the clock as it is now."""
        here = event["boot_id"] == self._boot
        return self._now.to_wall_clock(event["created_at"], event["boottime_us"], same_boot=here)

    def lines(self, event: Event) -> Iterator[str]:
        """Yield the event's line, and before it one that begins another boot."""
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
