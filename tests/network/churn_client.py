# SPDX-License-Identifier: Apache-2.0
"""The heartbeats of the churn laboratory: components that each beat by the clock, through one kind of client.

Runs as a program inside a namespace, under any interpreter with requests. A component whose beat still hangs skips
the ticks meanwhile, as an agent's thread would: they are lost. `told` on its input is the news of a network change. At
the end it prints one JSON line: of each component's beats start, end and error, and how late the machine woke it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import requests

from tests.network.churn_server import Stall

Told = Callable[[str], None]


def plain(ca: str, components: int) -> tuple[list[requests.Session], Told]:
    """A Session for each component, as most programs have."""
    sessions = [requests.Session() for _ in range(components)]
    for session in sessions:
        session.verify = ca
        session.trust_env = False
    return sessions, lambda _: None


def remounted(ca: str, components: int) -> tuple[list[requests.Session], Told]:
    """The same, told: new adapters at each change, the old ones closed."""
    sessions, _ = plain(ca, components)

    def told(_: str) -> None:
        for session in sessions:
            for prefix in ("https://", "http://"):
                old, session.adapters[prefix] = session.adapters[prefix], requests.adapters.HTTPAdapter()
                old.close()

    return sessions, told


def _ours(settings: Any, *, monitor: bool) -> Callable[[str, int], tuple[list[requests.Session], Told]]:
    def make(ca: str, components: int) -> tuple[list[requests.Session], Told]:
        import dataclasses

        from sammy_agent.transport import ControlPlaneTransport, NetworkMonitor

        transport = ControlPlaneTransport(dataclasses.replace(settings(), ca_file=ca))
        if monitor:
            NetworkMonitor(transport.remount).start()
        return [transport.session(f"component-{number}") for number in range(components)], transport.remount

    return make


def fast() -> Any:
    from tests import transport_profiles

    return transport_profiles.fast()


def default() -> Any:
    from sammy_agent.transport import TransportSettings

    return TransportSettings()


def tight() -> Any:
    """Figures that look right and are not: with a user timeout one lost probe kills. The laboratory must notice."""
    import dataclasses

    from sammy_agent.transport import SocketProfile, TransportSettings

    profile = SocketProfile(user_timeout=5.0, keep_idle=2, keep_interval=1)
    object.__setattr__(profile, "user_timeout", 1.0)  # behind the back of the check that refuses it
    return dataclasses.replace(TransportSettings(), prompt=profile)


CLIENTS = {
    "plain": plain,
    "remounted": remounted,
    "ours": _ours(fast, monitor=False),
    "ours-monitor": _ours(fast, monitor=True),
    "ours-default": _ours(default, monitor=False),
    "ours-tight": _ours(tight, monitor=False),
}


class Component(threading.Thread):
    def __init__(self, session: requests.Session, words: argparse.Namespace, number: int) -> None:
        super().__init__(daemon=True)
        self.session, self.words, self.number = session, words, number
        self.beats: list[tuple[float, float, str]] = []

    def run(self) -> None:
        words = self.words
        offset = words.interval * self.number / words.components if words.spread else 0.05 * (self.number % 20)
        for tick in range(words.beats):
            at = words.begin + offset + tick * words.interval
            now = time.time()
            if now >= at + words.interval and not words.back_to_back:
                continue  # the last beat hung over this tick: lost
            time.sleep(max(0.0, at - now))
            self.beat()

    def beat(self) -> None:
        start, error = time.time(), ""
        key = {"X-Sammy-Idempotency-Key": uuid.uuid4().hex}
        try:
            label = self.words.label.replace(" ", "-")
            path = f"/beat/{label}/{self.number}{self.words.query}"
            self.session.post(self.words.url + path, data=b"x" * self.words.size, headers=key, timeout=self.timeout())
        except requests.RequestException as caught:
            error = f"{type(caught).__name__}: {caught}"
        self.beats.append((start, time.time(), error))

    def timeout(self) -> Any:
        return None if self.words.client.startswith("ours") else 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--label", default="x")
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--beats", type=int, required=True)
    parser.add_argument("--query", default="")
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--spread", action="store_true", help="spread the components over the interval")
    parser.add_argument("--back-to-back", action="store_true", help="send every beat, however late")
    words = parser.parse_args()
    if os.environ.get("SAMMY_CHURN_LOG"):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sessions, told = CLIENTS[words.client](words.ca, words.components)
    print("ready", flush=True)
    words.begin = float(sys.stdin.readline())
    threads = [Component(session, words, number) for number, session in enumerate(sessions)]

    def listen() -> None:
        for line in sys.stdin:
            told(line.strip())

    stall = Stall()
    for thread in (*threads, stall, threading.Thread(target=listen, daemon=True)):
        thread.start()
    for thread in threads:
        thread.join()
    # Each found a connection dead, or was told of a change.
    renewed = getattr(getattr(sessions[0].adapters["https://"], "generation", None), "number", 1) - 1
    found = {"beats": [thread.beats for thread in threads], "stall": stall.longest, "renewed": renewed}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
