# SPDX-License-Identifier: Apache-2.0
"""The node's logs as its control plane gets them: page by page and as they grow, without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tornado import httpclient, websocket

from sammy_agent.control_plane.token_signer import TokenSigner
from tests.agent.lab import Agent, ControlPlane, wait_for
from tests.agent.test_server import get, listening

STAMP = "2026-11-24 10:{:02d}:{:02d},000 - util.py[{}]: "
PATIENCE = 120.0  # seconds; the machine may be busy
SECRET = "hunter2-hunter2-hunter2"


def said(node: Agent, *texts: str, level: str = "INFO") -> None:
    """Have cloud-init say something, a second after what it said before."""
    path = node.path("/var/log/cloud-init.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for text in texts:
            number = file.tell() % 3600
            file.write(STAMP.format(number // 60, number % 60, level) + text + "\n")


@pytest.fixture
def serving(node: Agent) -> Agent:
    node.start()
    listening(node)
    return node


@contextlib.contextmanager
def following(plane: ControlPlane, node: Agent, query: str = "") -> Iterator[Any]:
    """Yield a function that returns the next entry of the stream, and the connection it comes from."""
    token = TokenSigner.open(str(plane.folder)).management_token(plane.url, "n1")
    request = httpclient.HTTPRequest(
        f"wss://127.0.0.1:{node.port}/logs/stream?source=cloud-init{query}",
        headers={"Authorization": f"Bearer {token}"},
        ca_certs=plane.ca_file,
        connect_timeout=PATIENCE,
        request_timeout=PATIENCE,
    )
    loop = asyncio.new_event_loop()

    async def connected() -> Any:
        return await websocket.websocket_connect(request)

    connection = loop.run_until_complete(connected())

    async def following() -> Any:
        return await asyncio.wait_for(connection.read_message(), PATIENCE)

    def entry() -> Any:
        message = loop.run_until_complete(following())
        return None if message is None else json.loads(message)

    async def end() -> None:
        connection.close()
        while await connection.read_message() is not None:  # until the node has closed it, too
            pass

    try:
        yield entry
    finally:
        loop.run_until_complete(asyncio.wait_for(end(), PATIENCE))
        loop.close()


def test_pages_have_the_wires_shape_and_hold_no_secret(plane: ControlPlane, serving: Agent) -> None:
    said(serving, *(f"line {number}" for number in range(7)), f"password={SECRET} was set")
    token = serving.path("/var/lib/sammy/agent/token").read_text().strip()
    said(serving, f"sent {token} off", level="ERROR")
    entries: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(plane, serving, f"/logs?source=cloud-init&limit=4&cursor={cursor}").json()
        assert set(page) == {"entries", "nextCursor", "hasMore"} and page["hasMore"] is bool(page["nextCursor"])
        entries, cursor = [*entries, *page["entries"]], page["nextCursor"]
    assert [entry["message"].partition("]: ")[2] for entry in entries] == [
        "sent [scrubbed] off", "password=[scrubbed] was set", *(f"line {number}" for number in reversed(range(7)))
    ]  # fmt: skip
    assert {key for entry in entries for key in entry} == {"timestamp", "level", "source", "message", "metadata"}
    assert [entry["level"] for entry in entries][:2] == ["error", "info"]
    assert get(plane, serving, "/logs?source=cloud-init&level=error").json()["entries"] == entries[:1]
    for text in (SECRET, token, token[:20]):
        found = get(plane, serving, "/logs", params={"source": "cloud-init", "search": text}).json()
        assert found == {"entries": [], "nextCursor": None, "hasMore": False}


def test_wrong_filters_are_refused_all_at_once_and_in_words(plane: ControlPlane, serving: Agent) -> None:
    for path in ("/logs", "/logs/stream"):
        answer = get(plane, serving, f"{path}?level=loud&source=kernel&since=soon")
        assert answer.status_code == 400
        assert "level is 'loud', but must be one of debug, info, warn, error" in answer.json()["error"]
        assert "source is 'kernel'" in answer.json()["error"] and "since is 'soon'" in answer.json()["error"]
        assert get(plane, serving, path, None).status_code == 401
    assert "without it" in get(plane, serving, "/logs?cursor=AAAA").json()["error"]
    assert get(plane, serving, "/logs?cursor=AAAA").status_code == 400
    assert "limit: not where" in get(plane, serving, "/logs/stream?limit=3").json()["error"]


def test_the_operator_reads_them_through_the_control_plane(plane: ControlPlane, serving: Agent) -> None:
    said(serving, "of interest", f"password={SECRET} was set")
    wait_for(lambda: plane.nodes()["n1"]["lastHeartbeatAt"], "a heartbeat, which tells where the node is")

    def asked(query: str) -> requests.Response:
        operator = (plane.folder / "operator-token").read_text().strip()
        return requests.get(
            f"{plane.url}/api/nodes/n1/logs?source=cloud-init&{query}",
            headers={"Authorization": f"Bearer {operator}"}, verify=plane.ca_file, timeout=PATIENCE,
        )  # fmt: skip

    whole = asked("")
    assert whole.status_code == 200, whole.text
    assert [entry["message"].partition("]: ")[2] for entry in whole.json()["entries"]] == [
        "password=[scrubbed] was set", "of interest"
    ]  # fmt: skip
    wrong = asked("level=loud&since=soon")
    assert wrong.status_code == 400 and "level is 'loud'" in wrong.text and "since is 'soon'" in wrong.text


def test_the_stream_catches_up_and_goes_on(plane: ControlPlane, serving: Agent) -> None:
    said(serving, *(f"line {number}" for number in range(150)))
    with following(plane, serving) as entry:
        caught = [entry() for _ in range(100)]
        assert [one["message"].partition("]: ")[2] for one in caught] == [f"line {number}" for number in range(50, 150)]
        said(serving, f"password={SECRET} was set")
        assert entry()["message"].endswith("password=[scrubbed] was set")
        serving.path("/var/log/cloud-init.log").rename(serving.path("/var/log/cloud-init.log.1"))
        said(serving, "after the rotation")
        assert entry()["message"].endswith("after the rotation")
    with following(plane, serving, "&level=error") as entry:
        said(serving, "unheard")
        said(serving, "heard", level="ERROR")
        assert entry()["message"].endswith("heard")


def test_streams_are_bounded_and_given_back(plane: ControlPlane, serving: Agent) -> None:
    with contextlib.ExitStack() as stack:
        entries = [stack.enter_context(following(plane, serving)) for _ in range(8)]
        with pytest.raises(httpclient.HTTPClientError) as refused, following(plane, serving):
            pass
        assert refused.value.code == 503
        said(serving, "to all")
        assert all(entry()["message"].endswith("to all") for entry in entries)
        assert get(plane, serving, "/logs?source=cloud-init").status_code == 200, "pages do not wait for streams"
    with following(plane, serving) as entry:
        assert entry()["message"].endswith("to all")
    assert serving.stop() == 0


def test_who_follows_and_takes_nothing_costs_no_memory(plane: ControlPlane, serving: Agent) -> None:
    said(serving, "first")
    token = TokenSigner.open(str(plane.folder)).management_token(plane.url, "n1")
    context = ssl.create_default_context(cafile=plane.ca_file)
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with context.wrap_socket(plain, server_hostname="n1") as channel:
            channel.sendall(
                b"GET /logs/stream?source=cloud-init HTTP/1.1\r\nHost: n1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
            )
            assert channel.recv(4096).startswith(b"HTTP/1.1 101")
            with following(plane, serving) as entry:  # who takes everything shows when both could have been sent all
                assert entry()["message"].endswith("first")
                before = resident(serving)
                said(serving, *["x" * 10_000] * 4000, "the end")  # 40 MB
                while not entry()["message"].endswith("the end"):
                    pass
            grown = resident(serving) - before
    assert grown < 15 * 1024 * 1024


def resident(node: Agent) -> int:
    with open(f"/proc/{node.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
