# SPDX-License-Identifier: Apache-2.0
"""The control plane's routes for workspaces and for asking nodes: its application on loopback, without TLS.

Whole processes with certificates are tests/contract's; here a node is a plain server that can misbehave on purpose.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from tornado import httpserver, netutil

from sammy_agent.base.web import streaming
from sammy_agent.base.wire.endpoints import NODE_SERVER_ROUTES as ROUTES
from sammy_agent.base.wire.limits import MAX_MESSAGES_PER_SESSION
from sammy_agent.control_plane.api import app
from sammy_agent.control_plane.api.base_handler import ApiContext
from sammy_agent.control_plane.node_client import NodeRefused, Unreachable
from sammy_agent.control_plane.storage.database import Store
from sammy_agent.control_plane.storage.workspaces import WorkspaceStore
from sammy_agent.control_plane.token_signer import TokenSigner

OPERATOR = "the operator's token"
URL = "https://plane.example"
MESSAGE = {
    "messageId": "m-1", "sessionId": "s-1", "role": "user", "content": "hello", "timestamp": "2026-11-24T00:00:00Z",
}  # fmt: skip
ENTRY = {"step": "clone", "status": "started", "timestamp": "2026-11-24T00:00:00Z"}


class Node:
    """The way into a node: `get` raises `refusal`, or returns what a server on loopback answers."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.answer = b"{}"
        self.headers: dict[str, str] = {}
        self.gone: list[requests.Response] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                for name, value in (outer.headers or {"Content-Length": str(len(outer.answer))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def get(self, row: Mapping[str, Any], path: str, query: str = "") -> requests.Response:
        self.asked.append((row["id"], path, query))
        if self.refusal is not None:
            raise self.refusal
        port = self._server.server_address[1]
        self.gone.append(requests.get(f"http://127.0.0.1:{port}{path}", stream=True, timeout=30))
        return self.gone[-1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Plane(NamedTuple):
    """A control plane that serves."""

    port: int
    signer: TokenSigner
    rows: WorkspaceStore
    node: Node

    def get(self, path: str, token: str = OPERATOR) -> requests.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def post(
        self, path: str, body: Any, subject: str = "w1", scope: str = "workspace", **how: Any
    ) -> requests.Response:
        token = self.signer.callback_token(URL, subject, scope=scope, **how)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return requests.post(f"http://127.0.0.1:{self.port}{path}", data=json.dumps(body), headers=headers, timeout=30)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> TokenSigner:
    return TokenSigner.open(str(tmp_path_factory.mktemp("key")))


@pytest.fixture
def plane(tmp_path: Path, signer: TokenSigner) -> Iterator[Plane]:
    """A control plane with node n1 and its workspaces w1 and w2, in a thread with a loop of its own."""
    node, begun, ready = Node(), threading.Event(), []

    async def serve() -> None:
        store = Store(str(tmp_path), create=True)
        rows = WorkspaceStore(store)
        store.add_node("n1", "boot-token")
        assert rows.add("w1", "n1") and rows.add("w2", "n1")
        way, authority = node, None
        context = ApiContext(store, signer, authority, URL, OPERATOR, way, str(tmp_path))  # type: ignore[arg-type]  # fakes
        server = httpserver.HTTPServer(app.application(context))
        sockets = netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        stop = asyncio.Event()
        ready.extend([sockets[0].getsockname()[1], rows, asyncio.get_running_loop(), stop])
        begun.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()
        store.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert begun.wait(30)
    port, rows, loop, stop = ready
    yield Plane(port, signer, rows, node)
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    node.close()
    assert not thread.is_alive()


def batch(*changes: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{**MESSAGE, **change} for change in changes or ({},)]}


def told(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_messages_are_kept_once_and_shown_page_by_page(plane: Plane) -> None:
    path = "/api/workspaces/w1/messages"
    three = batch(*({"messageId": f"m-{number}", "content": str(number)} for number in range(3)))
    assert plane.post(path, three).json() == {"persisted": 3, "duplicates": 0}
    assert plane.post(path, three).json() == {"persisted": 0, "duplicates": 3}
    first = plane.get(path + "?limit=2").json()["messages"]
    rest = plane.get(f"{path}?after={first[-1]['row']}").json()["messages"]
    assert [one["content"] for one in (*first, *rest)] == ["0", "1", "2"]
    assert len(plane.get(path + "?limit=0").json()["messages"]) == 1, "a page is never empty for its size"


@pytest.mark.parametrize("query", ["after=x", "limit=all", "limit=1.5"])
def test_a_page_that_is_no_number_is_400(plane: Plane, query: str) -> None:
    answer = plane.get(f"/api/workspaces/w1/messages?{query}")
    assert told(answer) == (400, "after and limit must be whole numbers")


def test_a_full_session_is_409_and_says_what_it_would_take(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = WorkspaceStore.insert_messages
    monkeypatch.setattr(
        WorkspaceStore, "insert_messages", lambda rows, workspace, entries: insert(rows, workspace, entries, 2)
    )
    path = "/api/workspaces/w1/messages"
    assert plane.post(path, batch()).status_code == 200
    answer = plane.post(path, batch({"messageId": "m-2"}, {"messageId": "m-3"}))
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "SESSION_MESSAGE_LIMIT_EXCEEDED", "message": "The session takes no more messages",
        "persisted": 0, "duplicates": 0, "maxMessages": MAX_MESSAGES_PER_SESSION, "remainingCapacity": 1,
    }  # fmt: skip
    assert len(plane.get(path).json()["messages"]) == 1, "all of a batch or nothing"


def test_a_workspace_speaks_for_one_session(plane: Plane) -> None:
    path = "/api/workspaces/w1/messages"
    plane.post(path, batch())
    answer = plane.post(path, batch({"messageId": "m-2", "sessionId": "s-2"}))
    assert told(answer) == (400, "The workspace is linked to another session")


@pytest.mark.parametrize("path", ["messages", "boot-log"])
def test_a_workspaces_doors_open_to_its_own_token_alone(plane: Plane, path: str) -> None:
    body = batch() if path == "messages" else ENTRY
    own = f"/api/workspaces/w1/{path}"
    assert told(plane.post(own, body, "w2")) == (403, "Callback token does not match workspace")
    assert told(plane.post(own, body, "n1", "node")) == (403, "Insufficient token scope")
    assert told(plane.post(f"/api/workspaces/w9/{path}", body, "w9")) == (404, "Workspace not found")
    assert plane.post(own, {}, "w2").status_code == 400, "the body is judged before the token"
    late = plane.post(own, body, now=time.time() - 0.6 * 86400).json()
    assert plane.signer.verify(late["refreshedToken"]).subject == "w1", "SAM never renews these"
    assert "refreshedToken" not in plane.post(own, body).json()


def test_a_workspaces_boot_log_keeps_each_entry_that_comes(plane: Plane) -> None:
    for _ in range(2):
        assert plane.post("/api/workspaces/w1/boot-log", ENTRY).json() == {"success": True}
    shown = plane.get("/api/workspaces/w1").json()
    assert [entry["step"] for entry in shown["bootLog"]] == ["clone"] * 2
    assert (shown["id"], shown["nodeId"], shown["messages"]) == ("w1", "n1", 0)


def test_a_nodes_boot_log_keeps_each_id_once(plane: Plane) -> None:
    path, own = "/api/nodes/n1/boot-log", {"subject": "n1", "scope": "node"}
    body = {"entries": [{**ENTRY, "id": f"run/{number}"} for number in range(2)]}
    assert plane.post(path, body, **own).json() == {"success": True, "persisted": 2, "duplicates": 0}
    assert plane.post(path, body, **own).json() == {"success": True, "persisted": 0, "duplicates": 2}
    assert [entry["id"] for entry in plane.get(path).json()["entries"]] == ["run/0", "run/1"]
    other = plane.post("/api/nodes/n9/boot-log", body, "n9", "node")
    assert told(other) == (404, "Node not found")
    assert plane.post(path, body, "w1").status_code == 403, "a workspace is no node"


def test_the_operator_sees_all_workspaces_or_one(plane: Plane) -> None:
    plane.post("/api/workspaces/w2/messages", batch(), "w2")
    found = plane.get("/api/workspaces").json()["workspaces"]
    assert [(one["id"], one["sessionId"], one["messages"]) for one in found] == [("w1", None, 0), ("w2", "s-1", 1)]
    assert told(plane.get("/api/workspaces/w9")) == (404, "Workspace not found")


@pytest.mark.parametrize(
    "path",
    ["workspaces", "workspaces/w1", "workspaces/w1/messages", "nodes/n1/boot-log", *(f"nodes/n1/{r}" for r in ROUTES)],
)
def test_what_is_the_operators_is_nobody_elses(plane: Plane, path: str) -> None:
    for token in ("", "x", plane.signer.callback_token(URL, "w1", scope="workspace")):
        answer = plane.get(f"/api/{path}", token)
        assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
    assert plane.node.asked == []


@pytest.mark.parametrize("route", ROUTES)
def test_a_nodes_own_answer_comes_through_as_it_is(plane: Plane, route: str) -> None:
    plane.node.answer = bytes(range(256)) * 2 * (streaming.CHUNK // 256) + b"the end"
    plane.node.headers = {
        "Content-Type": "application/x-node", "Content-Disposition": 'attachment; filename="a"',
        "X-Content-SHA256": "ab", "Set-Cookie": "secret=1",
    }  # fmt: skip
    answer = plane.get(f"/api/nodes/n1/{route}?limit=5&q=a%20b")
    assert (answer.status_code, answer.content) == (200, plane.node.answer)
    assert answer.headers["Content-Type"] == "application/x-node" and answer.headers["X-Content-SHA256"] == "ab"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a"' and "Set-Cookie" not in answer.headers
    assert plane.node.asked == [("n1", f"/{route}", "limit=5&q=a%20b")]


def test_only_known_routes_of_known_nodes_are_asked(plane: Plane) -> None:
    assert told(plane.get("/api/nodes/n9/events")) == (404, "Node not found")
    assert plane.get("/api/nodes/n1/secrets").status_code == 401, "what exists is not told"
    assert plane.node.asked == []


@pytest.mark.parametrize(
    ("refusal", "status", "error", "retry"),
    [
        (Unreachable("n1 was never heard of", "Was it booted?"), 502, "BAD_GATEWAY", None),
        (NodeRefused(429, "n1 answers 429: too many at once", "7"), 429, "TOO_MANY_REQUESTS", "7"),
        (NodeRefused(400, "n1 answers 400: limit must be a number"), 400, "BAD_REQUEST", None),
    ],
)
def test_why_a_node_gives_nothing_is_said_with_its_status(
    plane: Plane, refusal: Exception, status: int, error: str, retry: str | None
) -> None:
    plane.node.refusal = refusal
    answer = plane.get("/api/nodes/n1/logs")
    assert answer.json() == {"error": error, "message": str(refusal)}
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry)


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_node_that_breaks_off_is_never_taken_for_a_whole_answer(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.node.answer = b"%x\r\n%b\r\n" % (streaming.CHUNK, b"x" * streaming.CHUNK)  # and no last chunk
    plane.node.headers = {"Transfer-Encoding": "chunked"}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        plane.get("/api/nodes/n1/debug-package")
    wait_for(lambda: "/api/nodes/n1/debug-package: the node closed the connection" in caplog.text)
    assert plane.get("/api/workspaces").status_code == 200, "it serves on"


def test_a_client_that_goes_is_noticed_and_the_node_is_let_go(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    plane.node.answer = b"x" * 64 * 1024 * 1024  # more than sockets hold
    with socket.create_connection(("127.0.0.1", plane.port), timeout=30) as client:
        client.sendall(b"GET /api/nodes/n1/debug-package HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
                       + OPERATOR.encode() + b"\r\n\r\n")  # fmt: skip
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    wait_for(lambda: "/api/nodes/n1/debug-package for 127.0.0.1: gone before the end" in caplog.text)
    wait_for(lambda: plane.node.gone[0].raw.closed)
