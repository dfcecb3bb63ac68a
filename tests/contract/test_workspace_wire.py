# SPDX-License-Identifier: Apache-2.0
"""Messages and boot logs at the embedded control plane, against the wire as it was observed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sammy_agent.control_plane.storage.database import Store
from sammy_agent.control_plane.storage.sessions import SessionStore
from sammy_agent.control_plane.storage.workspaces import BatchResult, SessionMismatch, WorkspaceStore
from sammy_agent.control_plane.token_signer import TokenSigner
from tests.agent.lab import ControlPlane, command, control_plane

MESSAGE = {
    "messageId": "m-1",
    "sessionId": "s-1",
    "role": "assistant",
    "content": "done ä𝄞",
    "timestamp": "2026-11-24T00:00:00.000Z",
    "sequence": 1,
}
ENTRY = {"step": "docker", "status": "started", "message": "", "timestamp": "2026-11-24T00:00:00.000Z"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        running.add_node("n1")
        for workspace in ("w1", "w2", "w3"):
            command("control-plane", "add-workspace", "n1", workspace, "--state", str(running.folder))
        yield running


def post(plane: ControlPlane, path: str, body: Any, *, subject: str = "w1", **how: Any) -> requests.Response:
    token = plane.signer.callback_token(plane.url, subject, **{"scope": "workspace", **how})
    return requests.post(
        plane.url + path,
        data=json.dumps(body, ensure_ascii=False).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        verify=plane.ca_file,
        timeout=30,
        allow_redirects=False,
    )


def batch(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{**MESSAGE, **change} for change in changes or ({},)]}


def test_messages_are_kept_once(plane: ControlPlane) -> None:
    body = batch({}, {"messageId": "m-2", "toolMetadata": '{"a":1}'}, {"messageId": "m-3", "origin": "prompt"})
    first = post(plane, "/api/workspaces/w1/messages", body)
    assert (first.status_code, first.json()) == (200, {"persisted": 3, "duplicates": 0})
    assert post(plane, "/api/workspaces/w1/messages", body).json() == {"persisted": 0, "duplicates": 3}
    both = batch({"messageId": "m-4"}, {"messageId": "m-4"})
    assert post(plane, "/api/workspaces/w1/messages", both).json() == {"persisted": 1, "duplicates": 1}
    shown = command("control-plane", "messages", "w1", "--state", str(plane.folder)).stdout
    assert [line.split()[1] for line in shown.splitlines()] == ["assistant"] * 4 and "done ä𝄞" in shown


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"messages": []}, "empty"),
        ({"messages": [MESSAGE] * 101}, "more than 100 rows"),
        (batch({"role": "narrator"}), "bad role"),
        (batch({"content": ""}), "empty content"),
        (batch({"content": "x" * 102_401}), "content over 102,400"),
        (batch({"content": "𝄞" * 51_201}), "counted in UTF-16 units"),
        (batch(*[{"messageId": str(n), "content": "x" * 90_000} for n in range(3)]), "payload over 262,144"),
        (batch({}, {"messageId": "m-9", "sessionId": "s-2"}), "mixed sessions"),
        (batch({"messageId": "m-9", "sessionId": "s-2"}), "another session"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_wire_refuses_is_400(plane: ControlPlane, body: dict[str, Any], why: str) -> None:
    post(plane, "/api/workspaces/w1/messages", batch())  # links the session
    answer = post(plane, "/api/workspaces/w1/messages", body)
    assert (answer.status_code, answer.json()["error"]) == (400, "BAD_REQUEST"), why


def test_the_longest_content_is_taken(plane: ControlPlane) -> None:
    body = batch({"content": "𝄞" * 51_200, "sessionId": "s-9"})
    assert post(plane, "/api/workspaces/w2/messages", body, subject="w2").json()["persisted"] == 1


def test_whose_token_opens_which_door(plane: ControlPlane) -> None:
    path = "/api/workspaces/w1/messages"
    assert post(plane, path, batch(), subject="n1", scope="node").status_code == 403
    assert post(plane, path, batch(), subject="w2").status_code == 403, "another workspace's"
    assert post(plane, path, batch(), now=time.time() - 2 * 86400).status_code == 401, "SAM says 500, ours what it is"
    assert post(plane, "/api/workspaces/w9/messages", batch(), subject="w9").status_code == 404
    assert post(plane, "/api/nodes/n1/boot-log", {"entries": [{**ENTRY, "id": "e"}]}).status_code == 403
    assert post(plane, "/api/nodes/n1/heartbeat", {}).status_code == 403
    # the body is judged before the token
    assert post(plane, path, {"messages": []}, subject="w2").status_code == 400


def test_a_workspaces_token_is_renewed_past_half_of_its_life(plane: ControlPlane) -> None:
    body, old = batch({"messageId": "late"}), time.time() - 0.52 * 86400
    answer = post(plane, "/api/workspaces/w1/messages", body, now=old).json()
    claims = TokenSigner.open(str(plane.folder)).verify(answer["refreshedToken"])
    assert (claims.subject, claims.scope) == ("w1", "workspace")
    assert "refreshedToken" not in post(plane, "/api/workspaces/w1/messages", body).json()


def test_a_workspaces_boot_log(plane: ControlPlane) -> None:
    path = "/api/workspaces/w3/boot-log"
    answer = post(plane, path, ENTRY, subject="w3")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    for wrong in ({**ENTRY, "status": "skipped"}, {**ENTRY, "timestamp": ""}, {**ENTRY, "step": None}):
        assert post(plane, path, wrong, subject="w3").status_code == 400
    for number in range(60):
        post(plane, path, {**ENTRY, "step": f"step-{number}"}, subject="w3")
    operator = (plane.folder / "operator-token").read_text().strip()
    view = requests.get(
        f"{plane.url}/api/workspaces/w3",
        headers={"Authorization": f"Bearer {operator}"},
        verify=plane.ca_file,
        timeout=30,
    ).json()
    assert [entry["step"] for entry in view["bootLog"]] == [f"step-{number}" for number in range(10, 60)]


def test_a_nodes_boot_log_keeps_each_entry_once(plane: ControlPlane) -> None:
    path = "/api/nodes/n1/boot-log"
    entries = {"entries": [{**ENTRY, "id": f"run/docker/{n}", "status": "skipped"} for n in range(3)]}
    first = post(plane, path, entries, subject="n1", scope="node")
    assert first.json() == {"success": True, "persisted": 3, "duplicates": 0}
    assert post(plane, path, entries, subject="n1", scope="node").json()["duplicates"] == 3
    assert post(plane, path, {"entries": [ENTRY]}, subject="n1", scope="node").status_code == 400, "without an id"
    shown = command("control-plane", "boot-log", "n1", "--state", str(plane.folder)).stdout
    assert shown.count("docker  skipped") == 3


def test_acp_sessions_and_whose_token_may_speak_for_them(plane: ControlPlane) -> None:
    beat, activity = "/api/projects/p1/node-acp-heartbeat", "/api/projects/p1/acp-sessions/a1/activity"
    node: dict[str, Any] = {"subject": "n1", "scope": "node"}
    assert (
        post(plane, activity, {"activity": "prompting", "nodeId": "n1", "restartCount": 0}, **node).status_code == 204
    )
    answer = post(plane, beat, {"nodeId": "n1"}, **node)
    assert (answer.status_code, answer.content) == (204, b"")
    assert post(plane, beat, {"nodeId": "n2"}, **node).status_code == 403, "another node"
    assert post(plane, beat, {}, **node).status_code == 400
    assert post(plane, activity, {"activity": "asleep", "nodeId": "n1"}, **node).status_code == 400
    plane.add_node("n2", "--replace")
    other: dict[str, Any] = {"subject": "n2", "scope": "node"}
    assert post(plane, activity, {"activity": "idle", "nodeId": "n2"}, **other).status_code == 403, "not its session"


def test_a_session_without_a_sign_of_life_is_interrupted(tmp_path: Path) -> None:
    sessions = SessionStore(Store(str(tmp_path), create=True))
    sessions.save_state("p1", "a1", "n1", {"activity": "prompting"})
    now = time.time()
    assert [one["activity"] for one in sessions.of_project("p1", now + 290)] == ["prompting"]
    assert [one["activity"] for one in sessions.of_project("p1", now + 310)] == ["interrupted"]


@pytest.fixture
def rows(tmp_path: Path) -> WorkspaceStore:
    store = Store(str(tmp_path), create=True)
    store.add_node("n1", "t")
    made = WorkspaceStore(store)
    made.add("w1", "n1")
    return made


def test_a_full_session_takes_nothing_and_says_what_it_would(rows: WorkspaceStore) -> None:
    some = batch(*[{"messageId": str(n)} for n in range(4)])["messages"]
    assert rows.insert_messages("w1", some[:3], most=4) == BatchResult(3, 0)
    more = batch(*[{"messageId": str(n)} for n in (2, 7, 8)])["messages"]
    assert rows.insert_messages("w1", more, most=4) == BatchResult(0, 1, remaining=1)
    assert rows.insert_messages("w1", some[3:], most=4) == BatchResult(1, 0)
    assert rows.insert_messages("w1", some, most=4) == BatchResult(0, 4), "what is known takes no room"
    with pytest.raises(SessionMismatch):
        rows.insert_messages("w1", batch({"sessionId": "s-2"})["messages"])


def test_a_node_that_is_removed_takes_its_workspaces_along(rows: WorkspaceStore, tmp_path: Path) -> None:
    rows.insert_messages("w1", batch()["messages"])
    rows.insert_boot_log("n1", None, [{**ENTRY, "id": "e"}])
    assert not rows.add("w1", "n2"), "another node's"
    assert Store(str(tmp_path)).remove_node("n1")
    assert rows.workspace("w1") is None and rows.messages("w1", 10) == [] and rows.log("n1", None) == []
