# SPDX-License-Identifier: Apache-2.0
"""What the agent must bring to the control plane: boot steps as they happen, failures, messages of workspaces."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sammy_agent.control_plane.token_signer import TokenSigner
from tests.agent.lab import TREE, Agent, ControlPlane, command, control_plane, wait_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plane")


@pytest.fixture
def plane(folder: Path) -> Iterator[ControlPlane]:
    with control_plane(folder) as running:
        yield running


def verb(node: Agent, *words: str, input: str | None = None, status: int = 0) -> str:
    """Run a verb of the node's sammy-agent."""
    done = command(*words, "--root", str(node.root), input=input, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def workspace(plane: ControlPlane, node: Agent, name: str) -> None:
    """Make a workspace known on both sides."""
    token = command("control-plane", "add-workspace", "n1", name, "--state", str(plane.folder)).stdout
    verb(node, "token", "set", "--workspace", name, input=token)


def message(number: int, content: str = "hello") -> dict[str, Any]:
    return {
        "messageId": f"m-{number}",
        "sessionId": "s",
        "role": "assistant",
        "content": content,
        "timestamp": "2026-01-01T00:00:00Z",
    }


def say(node: Agent, name: str, *messages: dict[str, Any]) -> dict[str, Any]:
    return node.ask("say " + json.dumps({"workspace": name, "messages": messages}))


def arrived(plane: ControlPlane, name: str) -> list[str]:
    shown = command("control-plane", "messages", name, "--json", "--state", str(plane.folder)).stdout
    return [json.loads(line)["messageId"] for line in shown.splitlines()]


def boot_log(plane: ControlPlane) -> list[tuple[str, str]]:
    shown = command("control-plane", "boot-log", "n1", "--json", "--state", str(plane.folder)).stdout
    return [(entry["step"], entry["status"]) for entry in map(json.loads, shown.splitlines())]


def contact(node: Agent) -> None:
    wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact")


def test_the_boots_steps_are_seen_as_they_happen_each_once(plane: ControlPlane, node: Agent) -> None:
    first = [("packages", "started"), ("packages", "completed"), ("docker", "started"), ("docker", "completed")]
    node.provisioned("running")
    node.start()
    wait_for(lambda: boot_log(plane) == first, "the steps while the boot goes on")
    node.stop(signal.SIGKILL)
    node.provisioned("ready")
    node.start()
    wait_for(lambda: boot_log(plane) == [*first, ("all", "completed")], "the end, and nothing twice after a kill")


def test_a_failed_run_is_one_incident_even_when_it_was_told_before_a_kill(plane: ControlPlane, node: Agent) -> None:
    plane.stop()
    node.provisioned("failed", "docker: no")
    node.start()
    wait_for(lambda: node.status().get("outbox", {}).get("rows"), "the report on disk while nobody can be told")
    node.stop(signal.SIGKILL)
    plane.start()
    node.start()
    wait_for(lambda: plane.nodes()["n1"]["incidents"], "the report")
    wait_for(lambda: node.status()["outbox"]["rows"] == 0, "nothing left")
    (incident,) = plane.nodes()["n1"]["incidents"]
    assert incident["message"] == "provisioning failed: docker: no"
    assert boot_log(plane)[-1] == ("all", "failed")


def test_messages_wait_out_an_absent_control_plane_and_a_kill(plane: ControlPlane, node: Agent) -> None:
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    assert say(node, "w1", message(1))["ok"]
    wait_for(lambda: arrived(plane, "w1") == ["m-1"], "the first message")
    plane.stop()
    assert say(node, "w1", message(2), message(3))["ok"], "durable, whoever is away"
    node.stop(signal.SIGKILL)
    shown = verb(node, "outbox")
    assert shown.startswith("messages w1: 2 rows, "), "seen with a dead agent too"
    plane.start()
    node.start()
    wait_for(lambda: arrived(plane, "w1") == ["m-1", "m-2", "m-3"], "all of them in order")
    wait_for(lambda: verb(node, "outbox") == "nothing waits\n", "nothing left")


def test_a_token_that_is_refused_keeps_everything_until_a_good_one_comes(plane: ControlPlane, node: Agent) -> None:
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    for how, status in (({"subject": "n1", "scope": "node"}, 1), ({"subject": "w2", "scope": "workspace"}, 1)):
        wrong = TokenSigner.open(str(plane.folder)).callback_token(plane.url, how["subject"], scope=how["scope"])
        verb(node, "token", "set", "--workspace", "w1", input=wrong, status=status)
    expired = TokenSigner.open(str(plane.folder)).callback_token(
        plane.url, "w1", scope="workspace", now=time.time() - 2 * 86400
    )
    verb(node, "token", "set", "--workspace", "w1", input=expired)
    assert node.status()["workspaces"]["w1"]["state"] == "expired"
    assert say(node, "w1", message(1))["ok"]
    trouble = wait_for(lambda: node.status()["outbox"]["trouble"], "what is wrong to be said")
    assert trouble["messages w1"].startswith("hold: 401"), trouble
    assert "1 rows" in verb(node, "outbox") and "hold: 401" in verb(node, "outbox")
    workspace(plane, node, "w1")
    wait_for(lambda: arrived(plane, "w1") == ["m-1"], "the message, at once with the new token")


def test_a_workspaces_token_is_renewed_and_outlives_the_agent(plane: ControlPlane, node: Agent) -> None:
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    aged = TokenSigner.open(str(plane.folder)).callback_token(
        plane.url, "w1", scope="workspace", now=time.time() - 0.6 * 86400
    )
    verb(node, "token", "set", "--workspace", "w1", input=aged)
    file = node.path("/var/lib/sammy/agent/workspaces/w1.token")
    assert file.read_text().strip() == aged and file.stat().st_mode & 0o777 == 0o600
    say(node, "w1", message(1))
    wait_for(lambda: file.read_text().strip() != aged, "the renewed token on disk")
    renewed = node.status()["workspaces"]["w1"]["expires"]
    node.stop(signal.SIGKILL)
    node.start()
    contact(node)
    assert node.status()["workspaces"]["w1"]["expires"] == renewed


def test_a_refused_row_is_set_aside_with_its_reason_and_can_be_sent_again(plane: ControlPlane, node: Agent) -> None:
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    say(node, "w1", message(1))
    wait_for(lambda: arrived(plane, "w1") == ["m-1"], "the session to be linked")
    say(node, "w1", {**message(2), "sessionId": "another"}, message(3))
    wait_for(lambda: node.status()["outbox"]["set_aside_now"] == 1, "the row of another session to be set aside")
    wait_for(lambda: arrived(plane, "w1") == ["m-1", "m-3"], "what stood behind it")
    shown = verb(node, "outbox", status=1)
    assert "m-2  400: The workspace is linked to another session" in shown and "requeue" in shown
    assert json.loads(verb(node, "outbox", "--json", status=1))["set_aside"][0]["id"] == "m-2"
    assert verb(node, "outbox", "requeue", "m-2") == "1 rows are in the queue again\n"
    wait_for(lambda: node.status()["outbox"]["set_aside_now"] == 1, "it is refused again")
    node.stop()
    assert verb(node, "outbox", "requeue") == "1 rows are in the queue again\n", "without an agent too"
    assert verb(node, "outbox").startswith("messages w1: 1 rows")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('say {"workspace": "../x", "messages": []}', "not a valid workspace id"),
        ('say {"workspace": "w1", "messages": [{"role": 1}]}', "role is not a string"),
        ('say {"workspace": "w1", "messages": [{"role": "narrator"}]}', "allowed is user, assistant"),
        ("say [", "not valid JSON"),
        ('boot-log {"workspace": "w1", "entry": {"id": "1", "step": "s", "timestamp": "t"}}', "allowed is started"),
    ],
)
def test_what_cannot_be_kept_is_said_to_whoever_asked(node: Agent, line: str, said: str) -> None:
    node.start()
    wait_for(lambda: node.status().get("outbox"), "the agent to have its outbox")
    answer = node.ask(line)
    assert not answer["ok"] and said in answer["error"], answer
    assert "bug" not in node.log()


def test_a_workspaces_own_boot_log(plane: ControlPlane, node: Agent) -> None:
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    entry = {"id": "b-1", "step": "clone", "status": "completed", "message": "ok", "timestamp": "2026-01-01T00:00:00Z"}
    assert node.ask("boot-log " + json.dumps({"workspace": "w1", "entry": entry})) == {"ok": True}
    wait_for(lambda: node.status()["outbox"]["rows"] == 0, "it to be delivered")
    wait_for(lambda: not node.status()["outbox"]["trouble"], "no trouble")


def test_what_sessions_do_is_told_and_an_absent_control_plane_hears_the_newest(
    plane: ControlPlane, node: Agent
) -> None:
    def sessions() -> dict[str, Any]:
        operator = (plane.folder / "operator-token").read_text().strip()
        answer = requests.get(
            f"{plane.url}/api/projects/p1/acp-sessions",
            headers={"Authorization": f"Bearer {operator}"},
            verify=plane.ca_file,
            timeout=30,
        )
        return {one["id"]: (one["activity"], one["nodeId"]) for one in answer.json()["sessions"]}

    def tell(session: str, activity: str) -> None:
        told = {"project": "p1", "session": session, "activity": activity, "agentType": "claude"}
        assert node.ask("activity " + json.dumps(told)) == {"ok": True}

    node.start()
    contact(node)
    tell("s1", "prompting")
    wait_for(lambda: sessions() == {"s1": ("prompting", "n1")}, "the state")
    plane.stop()
    for activity in ("idle", "prompting", "error"):
        tell("s1", activity)
    tell("s2", "idle")
    plane.start()
    wait_for(lambda: sessions() == {"s1": ("error", "n1"), "s2": ("idle", "n1")}, "the newest states")
    assert node.status()["sessions"]["p1/s1"] == {"activity": "error", "told": True}


def test_a_copied_disk_takes_no_rows_and_tokens_along(plane: ControlPlane, node: Agent) -> None:
    node.path("/run/cloud-init/.instance-id").write_text("i-old\n")
    node.start()
    contact(node)
    workspace(plane, node, "w1")
    plane.stop()
    say(node, "w1", message(1))
    node.stop(signal.SIGKILL)
    node.path("/run/cloud-init/.instance-id").write_text("i-new\n")
    node.start()
    wait_for(lambda: node.status().get("instance_id") == "i-new", "the agent to know")
    wait_for(lambda: node.status().get("outbox"), "its outbox")
    assert "w1" not in json.dumps(node.status()["outbox"]) and node.status()["workspaces"] == {}
    assert not node.path("/var/lib/sammy/agent/workspaces/w1.token").exists()


def test_the_socket_serves_others_while_one_is_silent(node: Agent) -> None:
    node.start()
    contact(node)
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('in', flush=True); "
        "sys.stdin.read()"
    )
    path = str(node.path("/run/sammy/agent.sock"))
    silent = [
        subprocess.Popen(
            [sys.executable, "-c", code, path], cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for one in silent:
            assert one.stdout is not None and one.stdout.readline() == "in\n"
        assert node.status()["pid"] == node.pid
        long = message(1, "x" * 300_000)
        assert say(node, "w1", long)["ok"], "a line of many packets"
        assert node.status()["outbox"]["rows"] >= 3, "cut into as many messages as the wire needs"
    finally:
        for one in silent:
            one.communicate()
