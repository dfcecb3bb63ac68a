# SPDX-License-Identifier: Apache-2.0
"""The agent's main loop in this process: signals, systemd's words, the control socket, the way out."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sammy_agent.base.runtime.control_client import ask
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon import main


class FakeAgent:
    """Does `during` in a thread of its own once it is started, then sends the process a signal."""

    def __init__(self, paths: Paths, during: Callable[[FakeAgent], None], number: int) -> None:
        self.paths, self._during, self._number = paths, during, number
        self.alive, self.wants_restart, self.exit_status = True, False, 0
        self.done: list[str] = []
        self.thread = threading.Thread(target=self._act)

    def verbs(self) -> dict[str, Any]:
        return {"status": lambda text: {"echo": text}}

    def start(self) -> None:
        self.done.append("start")
        self.thread.start()

    def is_alive(self) -> bool:
        return self.alive

    def record_stop_signal(self, number: int) -> None:
        self.done.append(f"signal {number}")

    def stop(self) -> None:
        self.done.append("stop")

    def _act(self) -> None:
        try:
            self._during(self)
        finally:
            os.kill(os.getpid(), self._number)


@pytest.fixture
def notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Return what was told to systemd since the last question."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "40000")

        def told() -> list[str]:
            found = []
            while True:
                try:
                    found.append(systemd.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield told


def run(root: Path, during: Callable[[FakeAgent], None], number: int = signal.SIGTERM) -> tuple[int, FakeAgent]:
    made: list[FakeAgent] = []

    def make(paths: Paths) -> Any:
        made.append(FakeAgent(paths, during, number))
        return made[0]

    status = main.run(str(root), make)
    made[0].thread.join(10)
    return status, made[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_puts_everything_back(
    tmp_path: Path, notifications: Callable[[], list[str]], number: int
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), len(os.listdir("/proc/self/fd"))
    answers: list[Any] = []

    def during(agent: FakeAgent) -> None:
        answers.append(ask(agent.paths.socket, "status now"))
        answers.append(os.stat(agent.paths.socket).st_mode & 0o777)
        answers.append(ask(agent.paths.socket, "nonsense"))

    status, agent = run(tmp_path / "root", during, number)
    assert status == 0 and agent.done == ["start", f"signal {int(number)}", "stop"]
    assert answers[:2] == [{"ok": True, "echo": "now"}, 0o600] and not answers[2]["ok"]
    assert not os.path.exists(agent.paths.socket)
    said = notifications()
    assert said[0].startswith("READY=1\n") and said[-1] == "STOPPING=1" and "WATCHDOG=1" in said
    assert before == (
        signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), len(os.listdir("/proc/self/fd"))
    )  # fmt: skip
    assert signal.set_wakeup_fd(-1) == -1


def test_the_watchdog_is_fed_while_the_agent_is_alive(tmp_path: Path, notifications: Callable[[], list[str]]) -> None:
    fed: list[int] = []

    def during(agent: FakeAgent) -> None:
        for alive in (True, False):
            agent.alive = alive
            time.sleep(0.05)  # the question that is under way
            notifications()
            time.sleep(0.2)
            fed.append(notifications().count("WATCHDOG=1"))

    run(tmp_path / "root", during)
    assert fed[0] >= 2 and fed[1] == 0


def test_a_restart_executes_the_same_command_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *call: executed.append(call))

    def during(agent: FakeAgent) -> None:
        agent.wants_restart, agent.exit_status = True, 3

    status, agent = run(tmp_path, during)
    assert executed == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]
    assert status == 3 and agent.done[-1] == "stop"


def test_what_fails_in_the_loop_stops_the_agent_and_closes_the_socket(tmp_path: Path) -> None:
    stopped: list[str] = []

    class Broken(FakeAgent):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

        def stop(self) -> None:
            stopped.append("stop")

    def make(paths: Paths) -> Any:
        return Broken(paths, lambda agent: None, signal.SIGTERM)

    with pytest.raises(RuntimeError, match="new thread"):
        main.run(str(tmp_path), make)
    assert stopped == ["stop"] and not os.path.exists(Paths(str(tmp_path)).socket)
