# SPDX-License-Identifier: Apache-2.0
"""For the outbox: a control plane that answers with a seeded mix, a sender to be killed, and who compares them."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sammy_agent.daemon.client.client import ControlPlaneClient
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.credentials.tokens import WorkspaceToken
from sammy_agent.daemon.outbox.dispatcher import Dispatcher
from sammy_agent.daemon.outbox.exchange import OutboxHttp
from sammy_agent.daemon.outbox.queue import Outbox
from sammy_agent.daemon.outbox.retry_policy import RetryPolicy
from sammy_agent.daemon.reporters.messages import Message, MessageReporter
from sammy_agent.transport import ControlPlaneTransport
from tests.agent.lab import PATIENCE, TREE

MIX = ("400", "401", "403", "409", "429", "500", "hang", "cut", "cut-late")
DEADLINE = 0.5
QUICK = RetryPolicy(0.02, 0.2, 0.01, 0.1, confirmations=8)
POISON = "poison"


class Mixed:
    """A messages route: rows are kept once by id; `share` of the requests is answered from MIX instead.

    A batch with a poison row is refused whole. Of a `cut-late` answer the effect stays. Heartbeats are answered well.
    """

    def __init__(self, seed: int, share: float, delay: float = 0.0) -> None:
        self.kept: dict[str, list[tuple[str, int]]] = {}
        self.answers: dict[str, int] = {}
        self.duplicates = self.requests = 0
        self.largest = 0
        self._ids: set[str] = set()
        self._random, self._share, self._delay = random.Random(seed), share, delay
        self._lock = threading.Lock()
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if self.path.endswith("/messages"):
                    outer._serve(self, raw)
                elif self.path.endswith("/heartbeat"):
                    answer(self, 200, {"status": "running", "healthStatus": "healthy"})
                else:
                    answer(self, 404, {"message": "there is no such door here"})

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Mixed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def total(self) -> int:
        """Return how many rows had an effect."""
        with self._lock:
            return len(self._ids)

    def _serve(self, request: BaseHTTPRequestHandler, raw: bytes) -> None:
        if self._delay:
            self._over.wait(self._delay)
        with self._lock:
            manner = self._random.choice(MIX) if self._random.random() < self._share else "200"
            self.requests += 1
            self.answers[manner] = self.answers.get(manner, 0) + 1
        if manner == "hang":
            self._over.wait(DEADLINE * 2)
        if manner in ("hang", "cut"):
            request.close_connection = True
            return
        status, document = (200, {}) if manner in ("200", "cut-late") else (int(manner), {"message": "as it pleases"})
        if status == 200:
            status, document = self._keep(request.path.split("/")[3], json.loads(raw)["messages"], len(raw))
        if manner == "cut-late":
            request.close_connection = True
            return
        answer(request, status, document)

    def _keep(self, workspace: str, rows: Sequence[dict[str, Any]], size: int) -> tuple[int, dict[str, Any]]:
        if any(POISON in row["content"] for row in rows):
            return 400, {"error": "BAD_REQUEST", "message": "a row is not to our taste"}
        if len({row["sessionId"] for row in rows}) != 1 or not 1 <= len(rows) <= 100 or size > 262_144:
            return 400, {"error": "BAD_REQUEST", "message": "the wire's rules"}
        with self._lock:
            self.largest = max(self.largest, len(rows))
            new = [row for row in rows if row["messageId"] not in self._ids]
            self._ids.update(row["messageId"] for row in new)
            self.kept.setdefault(workspace, []).extend((row["messageId"], row["sequence"]) for row in new)
            self.duplicates += len(rows) - len(new)
        return 200, {"persisted": len(new), "duplicates": len(rows) - len(new)}


def answer(request: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
    """Send JSON; a 429 says that one may come back at once."""
    body = json.dumps(document).encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    if status == 429:
        request.send_header("Retry-After", "0")
    request.end_headers()
    request.wfile.write(body)


def is_poison(number: int) -> bool:
    """Tell which of a workspace's messages the server refuses; two of them stand together."""
    return number % 97 in (40, 41)


def problems(
    kept: dict[str, list[tuple[str, int]]],
    set_aside: set[str],
    workspaces: int,
    each: int,
    bad: Callable[[int], bool] = is_poison,
) -> list[str]:
    """Return what was lost, doubled, out of order, or wrongly set aside; `bad` tells which the server refuses."""
    found = []
    poison = {f"ws-{w}:{n}" for w in range(workspaces) for n in range(each) if bad(n)}
    for workspace in (f"ws-{number}" for number in range(workspaces)):
        wanted = [f"{workspace}:{number}" for number in range(each) if not bad(number)]
        got = [message for message, _ in kept.get(workspace, [])]
        if len(got) != len(set(got)):
            found.append(f"{workspace}: a message twice")
        if set(wanted) - set(got):
            found.append(f"{workspace}: lost {sorted(set(wanted) - set(got))[:3]}")
        if got != sorted(got, key=lambda one: int(one.split(":")[1])):
            found.append(f"{workspace}: out of order")
        numbers = [sequence for _, sequence in kept.get(workspace, [])]
        if numbers != sorted(numbers):
            found.append(f"{workspace}: sequences out of order")
    if set_aside != poison:
        found.append(f"set aside {sorted(set_aside ^ poison)[:3]} that should not be, or the reverse")
    return found


def send(folder: Path, url: str, workspaces: int, each: int) -> None:
    """Be the process that is killed: a thread a workspace writes, what is in the outbox is sent."""
    outbox = Outbox(str(folder / "outbox.db"))
    transport = ControlPlaneTransport()
    token = WorkspaceToken.parse("a-token")
    clients = [ControlPlaneClient(url, transport.session, ConnectionStatus()) for _ in range(3)]
    exchanges = [OutboxHttp(client, lambda channel, lane: token, deadline=DEADLINE) for client in clients]
    for worker in Dispatcher(outbox, exchanges, QUICK).workers:
        worker.start()
    writers = [
        threading.Thread(target=_write, args=(folder, MessageReporter(outbox), f"ws-{number}", each), daemon=True)
        for number in range(workspaces)
    ]
    for writer in writers:
        writer.start()
    print("writing", flush=True)
    threading.Event().wait()


def _write(folder: Path, messages: MessageReporter, workspace: str, each: int) -> None:
    """Say each message once it is known that the one before is durable; a kill in between says one again."""
    mark = folder / workspace
    first = int(mark.read_text() or "0") if mark.exists() else 0
    pause = random.Random()
    for number in range(first, each):
        content = POISON if is_poison(number) else f"message {number} ä𝄞"
        messages.send(workspace, Message(f"{workspace}:{number}", "s", "assistant", content, "2026-01-01T00:00:00Z"))
        beside = mark.with_suffix(".new")
        beside.write_text(str(number + 1))
        beside.replace(mark)
        time.sleep(pause.uniform(0, 0.02))


@contextmanager
def _life(folder: Path, url: str, workspaces: int, each: int) -> Iterator[subprocess.Popen[str]]:
    arguments = [str(folder), url, str(workspaces), str(each)]
    with open(folder / "sender.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.outbox_lab", *arguments],
            cwd=TREE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "writing\n", (folder / "sender.log").read_text()[-2000:]
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def kill_often(folder: Path, *, kills: int, workspaces: int, each: int, seed: int, patience: float) -> dict[str, Any]:
    """Kill the sender so often at random moments, then let it finish; return what came of it."""
    chance = random.Random(seed)
    poison = sum(is_poison(number) for number in range(each)) * workspaces
    with Mixed(seed, share=0.35) as server:
        for _ in range(kills):
            with _life(folder, server.url, workspaces, each) as process:
                time.sleep(chance.uniform(0.0, 0.3))  # the moment of the kill is what is drawn
                assert process.poll() is None
        at_last_kill = server.total()
        began = time.monotonic()
        with _life(folder, server.url, workspaces, each):
            # all had its effect, and the sender knows: a kill in between leaves rows to be sent again
            while server.total() < workspaces * each - poison or counted(folder) != (0, poison):
                assert time.monotonic() - began < patience, (
                    server.total(),
                    (folder / "sender.log").read_text()[-3000:],
                )
                time.sleep(0.1)
        left = Outbox(str(folder / "outbox.db"))
        refused, totals = left.dead_letters(), left.totals()
        left.close()
        return {
            "problems": problems(server.kept, {row["id"] for row in refused}, workspaces, each),
            "reasons": {row["reason"] for row in refused},
            "totals": totals,
            "answers": server.answers,
            "duplicates": server.duplicates,
            "at_last_kill": at_last_kill,
            "kept": server.kept,
            "set_aside": {row["id"] for row in refused},
        }


def counted(folder: Path) -> tuple[int, int]:
    """Return how many rows wait and how many are set aside, asked beside the sender."""
    return waiting_and_aside(folder / "outbox.db")


def waiting_and_aside(path: Path) -> tuple[int, int]:
    """Return how many rows of an outbox wait and how many are set aside, asked beside whoever uses it."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        waiting, aside = db.execute("SELECT (SELECT COUNT(*) FROM rows), (SELECT COUNT(*) FROM set_aside)").fetchone()
        return int(waiting), int(aside)
    finally:
        db.close()


if __name__ == "__main__":
    send(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
