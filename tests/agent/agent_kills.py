# SPDX-License-Identifier: Apache-2.0
"""Workspaces write to a real agent's socket while it is killed at random; the control plane answers as it pleases."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.agent.lab import Agent, agent
from tests.agent.outbox_lab import POISON, Mixed, problems, waiting_and_aside

NODE = "n1"


class Writer(threading.Thread):
    """A workspace: says a message until the agent answers that it is durable, then the next."""

    def __init__(self, node: Agent, workspace: str, each: int, pause: float, bad: Sequence[int]) -> None:
        super().__init__(name=workspace, daemon=True)
        self._node, self._workspace, self._each, self._pause, self._bad = node, workspace, each, pause, bad
        self.again = 0

    def run(self) -> None:
        chance = random.Random(self._workspace)
        for number in range(self._each):
            content = POISON if number in self._bad else f"message {number} ä𝄞"
            message = {
                "messageId": f"{self._workspace}:{number}",
                "sessionId": "s",
                "role": "assistant",
                "content": content,
                "timestamp": "2026-01-01T00:00:00Z",
            }
            line = "say " + json.dumps({"workspace": self._workspace, "messages": [message]})
            while not self._node.ask(line).get("ok"):
                self.again += 1
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 2 * self._pause))


def configure(node: Agent, url: str, workspaces: int) -> None:
    """Give the agent its control plane and a token for itself and each workspace."""
    node.path("/etc/sammy/callback-token").write_text("a-token")
    config = {
        "node_id": NODE,
        "control_plane_url": url,
        "token_file": "/etc/sammy/callback-token",
        "port": 8443,
        "heartbeat_seconds": 1.0,
    }
    node.path("/etc/sammy/agent.json").write_text(json.dumps(config))
    for number in range(workspaces):
        node.path(f"/var/lib/sammy/agent/workspaces/ws-{number}.token").write_text("a-token")


def kill_agent_often(
    folder: Path,
    *,
    kills: int,
    workspaces: int,
    each: int,
    seed: int,
    seconds: float,
    patience: float,
    bad: Sequence[int] = (20, 21),
    say: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Kill a real agent so often at random moments, then let it finish; return what came of it.

    :param seconds: about how long the workspaces go on writing.
    :param patience: seconds for the rest, once the killing is over.
    :param bad: which of a workspace's messages the server refuses; each takes the agent's full patience.
    """
    chance = random.Random(seed)
    poison = len(bad) * workspaces
    with Mixed(seed, share=0.35) as server, agent(folder) as node:
        configure(node, server.url, workspaces)
        writers = [Writer(node, f"ws-{number}", each, seconds / each, bad) for number in range(workspaces)]
        for writer in writers:
            writer.start()
        for kill in range(kills):
            node.start()
            time.sleep(chance.uniform(0.0, 2.0))  # the moment of the kill is what is drawn: also while it starts
            node.stop(signal.SIGKILL)
            if kill % 10 == 9:
                say(f"{kill + 1} kills, {server.total()} messages had their effect")
        at_last_kill = server.total()
        node.start()
        until = time.monotonic() + patience
        path = Path(node.path("/var/lib/sammy/agent/outbox.db"))
        while any(w.is_alive() for w in writers) or _waits(path) != (0, poison):
            assert time.monotonic() < until, (server.total(), _waits(path), node.status().get("outbox"))
            time.sleep(0.2)
        node.stop()
        refused = _refused(path)
        return {
            "problems": problems(server.kept, set(refused), workspaces, each, bad.__contains__),
            "reasons": set(refused.values()),
            "answers": server.answers,
            "duplicates": server.duplicates,
            "at_last_kill": at_last_kill,
            "said_again": sum(writer.again for writer in writers),
            "messages": workspaces * each,
            "effects": server.total(),
            "set_aside": len(refused),
        }


def _waits(path: Path) -> tuple[int, int]:
    try:
        return waiting_and_aside(path)
    except sqlite3.Error:
        return -1, -1  # not made yet


def _refused(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT id, reason FROM set_aside").fetchall())
