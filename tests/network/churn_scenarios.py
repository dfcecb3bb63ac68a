# SPDX-License-Identifier: Apache-2.0
"""The scenarios of the churn laboratory, each a function that returns figures; tests and the benchmark judge them."""

from __future__ import annotations

import collections
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.network.churn_lab import Beats, Client, Routed, Wired, laboratory, run

# What can cut connections; the firewall's lifting is no change that is looked at.
CHANGES = (
    "nat_forgets",
    "firewall_rewritten",
    "link_flaps",
    "uplink_flaps",
    "nat_address_changes",
    "own_address_changes",
    "rule_changes",
)
LATE = 0.7


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of client and when it is told of a change: at once and 1 s later, late, or never."""

    label: str
    client: str
    told: tuple[float, ...] = ()
    python: str = sys.executable


PLAIN = Kind("plain Sessions", "plain")
REMOUNTED = Kind("Sessions, told: mount + close", "remounted", (0.0,))
REMOUNTED_LATE = Kind("Sessions, told 0.7 s late", "remounted", (LATE,))
UNTOLD = Kind("sammy, untold", "ours")
MONITOR = Kind("sammy, own monitor", "ours-monitor")
TOLD = Kind("sammy, told", "ours", (0.0, 1.0))
TOLD_LATE = Kind("sammy, told 0.7 s late", "ours", (LATE,))
OURS = (UNTOLD, MONITOR, TOLD, TOLD_LATE)


def _telling(clients: Sequence[Client], kinds: Sequence[Kind], action: Callable[[], Any]) -> Callable[[], None]:
    """Make a change and bring each client the news when it is due."""
    plan = [(at, client) for client, kind in zip(clients, kinds, strict=True) for at in kind.told]

    def happen() -> None:
        action()
        start = time.monotonic()
        for at, client in sorted(plan, key=lambda one: one[0]):
            time.sleep(max(0.0, start + at - time.monotonic()))
            client.tell()

    return happen


def changes(
    kinds: Sequence[Kind],
    *,
    loose: int = 0,
    beats: int = 68,
    what: Sequence[str] = CHANGES,
    at: Sequence[float] = (),
    interval: float = 1.0,
    words: Sequence[str] = (),
) -> list[Beats]:
    """Let all kinds beat while one change after the other happens; at even times when `at` names none."""
    times = at or [6.37 + number * (beats * interval - 6) / len(what) for number in range(len(what))]
    with laboratory(Routed(loose=loose)) as lab:
        clients = [
            lab.client(kind.label, kind.client, beats, *words, interval=interval, python=kind.python) for kind in kinds
        ]
        happenings = [
            (moment, _telling(clients, kinds, getattr(lab, name))) for moment, name in zip(times, what, strict=True)
        ]
        changed = run(clients, happenings)
        return [client.result(changed) for client in clients]


def outage(kinds: Sequence[Kind], length: float) -> tuple[float, list[Beats]]:
    """Drop everything for so many seconds, told where so when it is over; return how long it really was, and all."""
    took = [0.0]
    with laboratory(Routed(loose=0)) as lab:
        clients = [lab.client(kind.label, kind.client, int(length) + 14, python=kind.python) for kind in kinds]

        def out() -> None:
            start = time.monotonic()
            with lab.outage():
                time.sleep(length)
            took[0] = time.monotonic() - start

        changed = run(clients, [(5.9, _telling(clients, kinds, out))])
        return took[0], [client.result(changed) for client in clients]


@dataclasses.dataclass(frozen=True)
class Health:
    """How healthy requests fared: failed to the caller, arrived twice, and how often a connection was given up."""

    label: str
    requests: int
    failed: int
    again: int
    renewed: int
    slowest: float
    errors: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{self.failed} failed, {self.again} sent again, connections given up {self.renewed} times"
        return f"{self.label}: {self.requests} requests, {counts}, slowest {self.slowest:.1f} s"


def healthy(
    label: str,
    client: str = "ours-default",
    *,
    requests: int = 1000,
    at_once: int = 100,
    delay: float = 0.0,
    loss: float = 0.0,
    query: str = "",
    size: int = 200,
    blocks: Sequence[tuple[float, float]] = (),
    python: str = sys.executable,
) -> Health:
    """Send requests, so many side by side, over a wire that is bad and not dead; count what was killed."""
    with laboratory(Wired()) as lab:
        lab.set("delay", delay / 2)
        lab.set("loss", loss)
        beats = requests // at_once
        words = ("--components", str(at_once), "--query", query, "--size", str(size), "--back-to-back")
        beating = lab.client(label, client, beats, *words, interval=0.01, python=python)
        happenings: list[tuple[float, Callable[[], Any]]] = []
        for start, length in blocks:
            happenings += [(start, lambda: lab.set("block", 1)), (start + length, lambda: lab.set("block", 0))]
        run([beating], happenings)
        process = beating.process
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        sent = [beat for component in told["beats"] for beat in component]
        lab.set("loss", 0)
        arrived = collections.Counter(key for _, key, _, _ in lab.arrived())
        return Health(
            label,
            len(sent),
            sum(1 for _, _, error in sent if error),
            sum(count - 1 for count in arrived.values()),
            told["renewed"],
            max(end - start for start, end, _ in sent),
            tuple(sorted({error for _, _, error in sent if error})),
        )


def outcome(process: subprocess.Popen[str]) -> Any:
    """Return what a program that has said its ready line prints next, as JSON."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())
