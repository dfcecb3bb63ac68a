# SPDX-License-Identifier: Apache-2.0
"""The control plane's way into its nodes, from both sides: its operator asks, a real agent answers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import socket
import ssl
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.storage.database import Store
from sammy_agent.daemon.credentials import certificate_request
from tests.agent.lab import PATIENCE, QUICK, Agent, ControlPlane, agent, command, control_plane, free_port, wait_for

EVERY = "0.5"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane"), "--contact-every", EVERY) as running:
        yield running


@pytest.fixture(scope="module")
def node(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A running, provisioned agent of node n1."""
    with agent(tmp_path_factory.mktemp("n1")) as one:
        one.configure(plane.add_node("n1"), **QUICK)
        one.provisioned("ready")
        one.start()
        wait_for(lambda: plane.nodes()["n1"]["reachable"], "the control plane to have come in")
        yield one


@pytest.fixture
def other(plane: ControlPlane, tmp_path: Path) -> Iterator[Agent]:
    """An agent of node n2, new, not yet started."""
    with agent(tmp_path) as one:
        one.configure(plane.add_node("n2", "--replace"), **QUICK)
        yield one


def get(plane: ControlPlane, path: str, token: str | None = None, **more: Any) -> requests.Response:
    """Ask as the operator."""
    operator = (plane.folder / "operator-token").read_text().strip()
    return requests.get(
        plane.url + path, headers={"Authorization": f"Bearer {token or operator}"}, verify=plane.ca_file,
        timeout=PATIENCE, **more,
    )  # fmt: skip


def set_node(plane: ControlPlane, node: str, **values: Any) -> None:
    store = Store(str(plane.folder))
    assert store.update_node(node, values)
    store.close()


def test_the_rounds_are_the_rhythm_that_a_node_hears(plane: ControlPlane, node: Agent) -> None:
    told = plane.nodes()["n1"]
    assert (told["reachable"], told["unreachableWhy"], told["agentPort"]) == (True, None, node.port)
    assert told["reachableAt"].endswith("Z")
    before = node.status()["inbound"]["requests"]
    wait_for(lambda: node.status()["inbound"]["requests"] >= before + 3, "three more visits")
    assert node.status()["inbound"]["last_peer"] == "127.0.0.1"


def test_the_operator_gets_the_nodes_own_answers(plane: ControlPlane, node: Agent) -> None:
    events = get(plane, "/api/nodes/n1/events?limit=2").json()
    assert len(events["events"]) == 2 and events["nextCursor"]
    further = get(plane, f"/api/nodes/n1/events?limit=2&cursor={events['nextCursor']}").json()["events"]
    assert not {one["id"] for one in further} & {one["id"] for one in events["events"]}
    assert get(plane, "/api/nodes/n1/system-info").json()["agent"]["version"]
    assert get(plane, "/api/nodes/n1/events/export").content.startswith(b"SQLite format 3\0")
    wrong = get(plane, "/api/nodes/n1/events?limit=x")
    assert wrong.status_code == 400 and "limit must be a number" in wrong.json()["message"]


def test_the_debug_package_comes_through_whole(plane: ControlPlane, node: Agent, tmp_path: Path) -> None:
    answer = get(plane, "/api/nodes/n1/debug-package")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/gzip"
    assert 'filename="debug-n1-' in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert "sammy-debug/results.json" in archive.getnames()

    file = tmp_path / "package.tar.gz"
    done = fetch(plane, "n1", "--output", str(file), "--json")
    said = json.loads(done.stdout)
    assert said["path"] == str(file) and said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600 and tarfile.is_tarfile(file)
    assert [path.name for path in tmp_path.iterdir()] == ["package.tar.gz"]


def test_a_package_that_has_no_place_is_not_asked_for(plane: ControlPlane, tmp_path: Path) -> None:
    # a node without an agent: one that beats says ready again as soon as it hears that it is creating, and is polled
    plane.add_node("n4", "--replace")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        set_node(plane, "n4", ip_address="127.0.0.1", agent_port=listener.getsockname()[1], last_heartbeat_at=1.0)
        done = fetch(plane, "n4", "--output", str(tmp_path / "nowhere" / "package.tar.gz"), check=False)
        assert done.returncode == 1 and "nowhere/package.tar.gz: No such file or directory" in done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_logs_come_through(plane: ControlPlane, node: Agent) -> None:
    answer = get(plane, "/api/nodes/n1/logs?source=agent&limit=1")
    assert answer.status_code == 200 and set(answer.json()) >= {"entries", "nextCursor", "hasMore"}
    assert get(plane, "/api/nodes/n1/logs?level=loud").status_code == 400


def fetch(plane: ControlPlane, *words: str, check: bool = True) -> Any:
    return command("control-plane", "debug-package", *words, "--state", str(plane.folder), check=check)


def test_a_node_that_failed_or_never_got_ready_can_be_asked_too(plane: ControlPlane, other: Agent) -> None:
    other.provisioned("failed", "docker: dockerd did not start")
    other.start()
    wait_for(lambda: get(plane, "/api/nodes/n2/events").status_code == 200, "the node to answer")
    assert plane.nodes()["n2"]["status"] == "creating"
    assert get(plane, "/api/nodes/n2/debug-package").status_code == 200


def test_only_the_operator_and_only_known_routes(plane: ControlPlane, node: Agent) -> None:
    for route in ("debug-package", "events", "system-info", "logs", "events/export"):
        assert get(plane, f"/api/nodes/n1/{route}", "not the operator's").status_code == 401, route
        unknown = get(plane, f"/api/nodes/nobody/{route}")
        assert (unknown.status_code, unknown.json()["error"]) == (404, "NOT_FOUND"), route
    assert get(plane, "/api/nodes/n1/health").status_code == 401
    assert get(plane, "/api/nodes/n1/events/../../../secrets").status_code == 401


def test_why_a_node_cannot_be_asked_is_said(plane: ControlPlane, other: Agent) -> None:
    never = get(plane, "/api/nodes/n2/events")
    assert (never.status_code, never.json()["error"]) == (502, "BAD_GATEWAY")
    assert "n2 has never sent a heartbeat" in never.json()["message"]
    failed = fetch(plane, "n2", check=False)
    assert failed.returncode == 1 and "n2 has never sent a heartbeat" in failed.stderr and failed.stdout == ""
    assert "there is no node n9" in fetch(plane, "n9", check=False).stderr

    other.provisioned("ready")
    other.start()
    wait_for(lambda: plane.nodes()["n2"]["reachable"], "the control plane to have come in")
    other.stop()
    wait_for(lambda: plane.nodes()["n2"]["reachable"] is False, "the rounds to notice")
    told = plane.nodes()["n2"]
    assert "refuses connections" in told["unreachableWhy"] and "On the node: sammy status" in told["unreachableWhy"]
    assert told["reachableAt"], "when it last was is still known"
    assert "refuses connections; its last heartbeat is" in get(plane, "/api/nodes/n2/events").json()["message"]
    listed = command("control-plane", "nodes", "--state", str(plane.folder)).stdout
    assert "refuses connections" in listed


def test_another_machine_at_the_nodes_address_is_told_nothing(plane: ControlPlane, node: Agent) -> None:
    """The address may be somebody else's by now: another node of the same control plane, or any machine."""
    plane.add_node("n3", "--replace")
    set_node(plane, "n3", ip_address="127.0.0.1", agent_port=node.port, last_heartbeat_at=1.0)
    before = node.log()
    answer = get(plane, "/api/nodes/n3/events")
    assert answer.status_code == 502 and "is not n3 as this control plane knows it" in answer.json()["message"]
    assert node.log() == before, "no request was sent"


def test_a_node_that_refuses_the_token_is_not_taken_for_the_operators_fault(plane: ControlPlane, node: Agent) -> None:
    set_node(plane, "n1", url="https://elsewhere.example")
    answer = get(plane, "/api/nodes/n1/events")
    set_node(plane, "n1", url=plane.url)
    assert answer.status_code == 502
    assert (
        f"n1 rejects this control plane's token: the token is not for this: its issuer is not {plane.url}"
        in (answer.json()["message"])
    )


@contextmanager
def pretender(plane: ControlPlane, answer: bytes) -> Iterator[None]:
    """Serve one answer as node n4, with its certificate, and cut the connection; again, when it is asked again."""
    folder = Path(tempfile.mkdtemp(dir=plane.folder))
    key, certificate = folder / "node.key", folder / "node.crt"
    request = certificate_request.request(str(key), str(certificate), "n4")
    certificate.write_text(CertificateAuthority(str(plane.folder)).sign_node(request, "n4", "127.0.0.1")[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(certificate), str(key))
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        plane.add_node("n4", "--replace")
        set_node(plane, "n4", ip_address="127.0.0.1", agent_port=listener.getsockname()[1])

        def serve() -> None:
            while True:
                plain, _ = listener.accept()
                if over.is_set():
                    return plain.close()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as channel:
                    channel.recv(65536)
                    channel.sendall(answer)
                    channel.unwrap()

        over = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            socket.create_connection(listener.getsockname(), timeout=PATIENCE).close()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Content-SHA256: " + b"0" * 64 + b"\r\n\r\nhello",
    ],
    ids=["short", "a chunk is missing", "another digest"],
)
def test_half_a_package_is_never_taken_for_a_whole_one(plane: ControlPlane, tmp_path: Path, answer: bytes) -> None:
    file = tmp_path / "package.tar.gz"
    with pretender(plane, answer):
        done = fetch(plane, "n4", "--output", str(file), check=False)
    assert done.returncode == 1 and "n4 closed the connection" in done.stderr
    assert not list(tmp_path.iterdir())
    if b"X-Content-SHA256" in answer:
        return  # the operator's client compares it
    with pretender(plane, answer), pytest.raises(urllib3.exceptions.ProtocolError):
        body = get(plane, "/api/nodes/n4/debug-package", stream=True)
        assert body.status_code == 200
        body.raw.enforce_content_length = True  # as curl and browsers do; requests leaves it to its caller
        assert body.raw.read(decode_content=False) == b"not reached"


def test_what_a_node_answers_wrongly_is_told_in_words(plane: ControlPlane) -> None:
    for answer, status, words in (
        (b'HTTP/1.1 409 Conflict\r\nRetry-After: 30\r\n\r\n{"error":"one is being made"}', 409, "one is being made"),
        (b'HTTP/1.1 500 Oh\r\n\r\n{"error":"a secret stood in it"}', 502, "n4 answers 500: a secret stood in it"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\n\r\n", 502, "n4 answers 302"),
        (b"HTTP/1.1 418 Teapot\r\n\r\n<html>" + b"x" * 100_000, 502, "n4 answers 418"),
        (b"nonsense\r\n\r\n", 502, "cannot be reached"),
        (b"", 502, "cannot be reached"),
    ):  # fmt: skip
        with pretender(plane, answer):
            told = get(plane, "/api/nodes/n4/debug-package")
        assert told.status_code == status and words in told.json()["message"], told.text
        assert told.headers.get("Retry-After") == ("30" if status == 409 else None)
