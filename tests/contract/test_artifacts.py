# SPDX-License-Identifier: Apache-2.0
"""Debug packages by the wire's own door for evidence: declared, sent, the same again, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.agent.lab import ControlPlane, command, control_plane
from tests.contract.test_wire import ULID, Peer, forged

CONTENT = gzip.compress(b"evidence" * 1000)
OTHER = gzip.compress(b"something else")
DOOR = f"/api/nodes/n1/diagnostic-incidents/{ULID}/artifacts"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as one:
        yield one


@pytest.fixture
def plane(running: ControlPlane) -> ControlPlane:
    """A control plane whose node has left nothing yet."""
    running.add_node("n1", "--replace")
    return running


def body(content: bytes = CONTENT, **changed: Any) -> dict[str, Any]:
    return {
        "artifactId": f"{ULID}-safe",
        "kind": "safe-vm-incident-v1",
        "contentType": "application/gzip",
        "sizeBytes": len(content),
        "checksumSha256": hashlib.sha256(content).hexdigest(),
        "manifest": {"schemaVersion": 1},
        "preview": {"message": "docker did not start"},
        "status": "ready",
        **changed,
    }


def put(peer: Peer, content: bytes, checksum: str | None = None, artifact: str = f"{ULID}-safe") -> requests.Response:
    return requests.put(
        f"{peer.plane.url}{DOOR}/{artifact}/content",
        data=content,
        headers={
            "Authorization": f"Bearer {peer.token}",
            "Content-Type": "application/gzip",
            "X-Content-SHA256": checksum if checksum is not None else hashlib.sha256(content).hexdigest(),
        },
        verify=peer.plane.ca_file,
        timeout=60,
    )


def test_declared_then_sent_and_the_same_again(plane: ControlPlane, tmp_path: Path) -> None:
    peer = Peer(plane)
    answer = peer.post(DOOR, body())
    assert (answer.status_code, answer.json()) == (201, {"artifactId": f"{ULID}-safe", "status": "pending"})
    assert plane.nodes()["n1"]["artifacts"][0]["status"] == "pending"
    for _ in range(2):
        sent = put(peer, CONTENT)
        assert (sent.status_code, sent.content) == (204, b"")
    assert peer.post(DOOR, body()).json()["status"] == "ready", "whoever lost the answer learns that all is there"
    assert put(peer, OTHER).status_code == 409
    assert peer.post(DOOR, body(OTHER)).status_code == 409
    (shown,) = plane.nodes()["n1"]["artifacts"]
    assert (shown["status"], shown["sizeBytes"], shown["incidentId"]) == ("ready", len(CONTENT), ULID)

    (kept,) = (plane.folder / "artifacts" / "n1").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.read_bytes() == CONTENT
    state = ("--state", str(plane.folder))
    table = command("control-plane", "artifacts", "n1", *state).stdout
    assert "docker did not start" in table and "--output DIR" in table
    told = json.loads(command("control-plane", "artifacts", "n1", "--json", "--output", str(tmp_path), *state).stdout)
    (written,) = tmp_path.iterdir()
    assert told["artifacts"][0]["path"] == str(written) and written.name == f"n1-{ULID}.tar.gz"
    assert written.read_bytes() == CONTENT and written.stat().st_mode & 0o777 == 0o600
    row = command("control-plane", "nodes", *state).stdout.splitlines()[1]
    assert row.split()[-1] == "1", "the node's row says how many it left"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"kind": "anything"}, 400),
        ({"sizeBytes": 2 * 1024 * 1024 + 1}, 400),
        ({"sizeBytes": 0}, 400),
        ({"sizeBytes": True}, 400),
        ({"checksumSha256": "x"}, 400),
        ({"artifactId": "../../etc/passwd"}, 400),
        ({"artifactId": None}, 400),
        ({"status": "perhaps"}, 400),
        ({"manifest": "x" * 40_000}, 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_declarations_that_are_refused(plane: ControlPlane, changed: dict[str, Any], status: int) -> None:
    assert Peer(plane).post(DOOR, body(**changed)).status_code == status
    assert plane.nodes()["n1"]["artifacts"] == []


def test_content_that_is_not_what_was_declared(plane: ControlPlane) -> None:
    peer = Peer(plane)
    assert put(peer, CONTENT).status_code == 404, "nothing was declared"
    assert peer.post(DOOR, body()).status_code == 201
    assert put(peer, CONTENT[:-1]).status_code == 400
    assert put(peer, CONTENT, checksum="").status_code == 400
    assert put(peer, bytes(len(CONTENT)), checksum=hashlib.sha256(CONTENT).hexdigest()).status_code == 400
    assert put(peer, CONTENT, artifact="another").status_code == 404
    assert put(peer, CONTENT).status_code == 204, "after all of that the right one is still taken"


def test_whose_tokens_open_it(plane: ControlPlane) -> None:
    for token, status in (
        (forged(plane, scope="workspace"), 403),
        (forged(plane, scope=None), 403),
        (forged(plane, sub="n2", workspace="n2"), 401),
        ("nonsense", 401),
    ):
        peer = Peer(plane, token)
        assert (peer.post(DOOR, body()).status_code, put(peer, CONTENT).status_code) == (status, status)
    assert Peer(plane).post(DOOR.replace(ULID, "no-ulid"), body()).status_code == 401, "no such path is told of"
    assert Peer(plane).post(DOOR.replace(ULID, "U" * 26), body()).status_code == 400
    ghost = Peer(plane, forged(plane, sub="ghost", workspace="ghost"))
    assert ghost.post(DOOR.replace("n1", "ghost"), body()).status_code == 404


def test_of_each_node_the_last_ten_are_kept_and_none_of_one_that_was_made_anew(plane: ControlPlane) -> None:
    peer = Peer(plane)
    for number in range(13):
        content = gzip.compress(str(number).encode())
        assert peer.post(DOOR, body(content, artifactId=f"a{number}")).status_code == 201
        assert put(peer, content, artifact=f"a{number}").status_code == 204
    assert len(plane.nodes()["n1"]["artifacts"]) == 10
    assert len(list((plane.folder / "artifacts" / "n1").iterdir())) == 10
    plane.add_node("n1", "--replace")
    assert plane.nodes()["n1"]["artifacts"] == []
    content = gzip.compress(b"new")
    assert peer.post(DOOR, body(content)).status_code == 201
    assert put(peer, content).status_code == 204
    assert len(list((plane.folder / "artifacts" / "n1").iterdir())) == 1


def test_one_of_the_greatest_size_is_taken(plane: ControlPlane) -> None:
    content = bytes(2 * 1024 * 1024)
    peer = Peer(plane)
    assert peer.post(DOOR, body(content)).status_code == 201
    assert put(peer, content).status_code == 204
