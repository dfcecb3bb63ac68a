# SPDX-License-Identifier: Apache-2.0
"""The agent's process and a real control plane's process: boot, ready, failure, token, identity, socket."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sammy_agent.control_plane.token_signer import TokenSigner
from tests.agent.lab import PATIENCE, QUICK, TREE, Agent, ControlPlane, command, wait_for

READY = "/var/lib/sammy/ready-acknowledged"


def seen(plane: ControlPlane) -> dict[str, Any]:
    return plane.nodes()["n1"]


def beat_later_than(plane: ControlPlane, last: str) -> bool:
    return bool(seen(plane)["lastHeartbeatAt"] != last)


def beats_go_on(plane: ControlPlane, count: int = 3) -> None:
    """Wait for so many more heartbeats."""
    for _ in range(count):
        wait_for(partial(beat_later_than, plane, seen(plane)["lastHeartbeatAt"]), "another heartbeat")


def test_from_the_first_beat_to_ready(plane: ControlPlane, node: Agent) -> None:
    node.configure(plane.add_node("n1", "--replace"))  # the default interval of 60 s
    node.provisioned("running")
    node.start()
    wait_for(lambda: seen(plane)["lastHeartbeatAt"], "the first beat, which does not wait for the interval", 30)
    assert seen(plane)["provisioning"]["phase"] == "provisioning"
    assert seen(plane)["status"] == "creating"
    assert node.status()["ready"]["state"] == "waiting"
    assert not node.path(READY).exists()

    node.provisioned("ready")
    wait_for(lambda: seen(plane)["status"] == "running", "ready", 30)
    wait_for(lambda: (seen(plane)["provisioning"] or {}).get("outcome") == "ready", "the outcome in a beat", 30)
    told = seen(plane)
    assert told["healthStatus"] == "healthy"
    assert [step["name"] for step in told["provisioning"]["steps"]] == ["packages", "docker"]
    assert told["provisioning"]["steps"][0]["durationMs"] == 1000.0
    wait_for(lambda: node.status()["ready"]["firewall_applied"], "the firewall to be applied")
    assert node.path(READY).exists()
    assert (node.root / "sammy-calls").read_text() == "firewall apply\n"

    status = node.status()
    assert status["contact"]["state"] == "ok" and abs(status["contact"]["clock_offset_s"]) < 5
    assert status["token"]["state"] == "ok" and 86000 < status["token"]["seconds_left"] <= 86400
    assert node.stop() == 0


def test_ready_is_said_once_and_remembered_over_restarts_and_kills(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("degraded", "image-prepull failed")
    node.start()
    wait_for(lambda: node.status().get("ready", {}).get("firewall_applied"), "ready and its firewall")
    first = seen(plane)["readyAt"]
    assert first is not None, "degraded is ready too"
    for how in (signal.SIGTERM, signal.SIGKILL):
        node.stop(how)
        node.start()
        beats_go_on(plane)
        assert node.status()["ready"]["state"] == "acknowledged"
    assert seen(plane)["readyAt"] == first
    assert (node.root / "sammy-calls").read_text() == "firewall apply\n"


def test_a_failed_node_never_reads_running_and_says_why(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("running")
    node.start()
    beats_go_on(plane, 1)
    node.provisioned("failed", "docker: dockerd did not start")
    wait_for(lambda: seen(plane)["incidents"], "the failure's report")
    wait_for(lambda: seen(plane)["provisioning"].get("outcome") == "failed", "the outcome in a beat")
    node.stop(signal.SIGKILL)
    node.start()
    beats_go_on(plane)
    told = seen(plane)
    assert told["status"] == "creating" and told["healthStatus"] == "healthy"
    assert told["errorMessage"] == "docker: dockerd did not start"
    (incident,) = told["incidents"]
    assert incident["message"] == "provisioning failed: docker: dockerd did not start"
    assert incident["context"]["failedSteps"] == [{"step": "docker", "reason": "docker: dockerd did not start"}]
    assert not node.path(READY).exists()
    wait_for(lambda: node.status()["errors"]["unsent"] == 0, "nothing left to report")

    # the cause goes, cc_sammy runs again
    node.provisioned("ready", run="20261124T010000-bbbbbbbb")
    wait_for(lambda: seen(plane)["status"] == "running", "ready after the repair")


def test_a_state_of_another_boot_says_nothing(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("ready", boot_id="00000000-another-boot")
    node.start()
    beats_go_on(plane)
    assert seen(plane)["status"] == "creating"
    assert node.status()["provisioning"] == {"phase": "waiting"}
    events = sqlite3.connect(node.path("/var/lib/sammy/agent/events.db"))
    wait_for(
        lambda: events.execute("SELECT count(*) FROM events WHERE step != ''").fetchone()[0] == 4,
        "its timings in the store",
    )
    events.close()


def test_a_control_plane_that_forgot_hears_ready_again(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("ready")
    node.start()
    wait_for(lambda: seen(plane)["status"] == "running", "ready")
    with sqlite3.connect(plane.folder / "control-plane.db", timeout=30) as database:
        database.execute("UPDATE nodes SET status='creating', ready_at=NULL WHERE id='n1'")
    wait_for(lambda: seen(plane)["status"] == "running", "ready once more")


def test_the_renewed_token_is_kept_on_disk(plane: ControlPlane, node: Agent) -> None:
    node.start()
    beats_go_on(plane)
    own = node.path("/var/lib/sammy/agent/token")
    first = node.path("/etc/sammy/callback-token").read_text()
    assert own.read_text().strip() != first.strip()
    assert own.stat().st_mode & 0o777 == 0o600
    node.stop(signal.SIGKILL)
    with sqlite3.connect(plane.folder / "control-plane.db", timeout=30) as database:
        database.execute("UPDATE nodes SET boot_token_used_at = boot_token_used_at - 86401 WHERE id='n1'")
    node.start()
    beats_go_on(plane)
    assert node.status()["contact"]["state"] == "ok"


def test_an_expired_token_is_said_and_set_anew(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("ready")
    two_days_ago = TokenSigner.open(str(plane.folder)).callback_token(plane.url, "n1", now=time.time() - 2 * 86400)
    node.path("/etc/sammy/callback-token").write_text(two_days_ago)
    node.start()
    wait_for(lambda: node.cause() == "token-expired", "the expired token to be said")
    status = node.status()
    assert status["token"]["state"] == "expired" and status["token"]["seconds_left"] < -86000
    assert "sammy-agent token set" in status["contact"]["cause"]["next_step"]
    assert seen(plane)["status"] == "creating"

    wrong = command(
        "token", "set", "--root", str(node.root), check=False,
        input=TokenSigner.open(str(plane.folder)).callback_token(plane.url, "n2"),
    )  # fmt: skip
    assert wrong.returncode == 1 and "this token is for n2" in wrong.stderr
    done = command("token", "set", "--root", str(node.root), input=plane.token("n1") + "\n")
    assert done.stdout == "token set; the agent uses it now\n"
    wait_for(lambda: seen(plane)["status"] == "running", "ready with the new token")
    assert node.status()["token"]["state"] == "ok"


def test_a_new_instance_id_discards_what_the_old_machine_kept(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("ready")
    node.start()
    wait_for(lambda: node.status().get("ready", {}).get("firewall_applied"), "ready")
    key = node.path("/etc/sammy/tls/node.key")
    wait_for(node.path("/etc/sammy/tls/node.crt").exists, "the certificate")
    old_key, old_token = key.read_text(), node.path("/var/lib/sammy/agent/token").read_text()
    node.stop(signal.SIGKILL)

    # the disk is copied: another machine boots with it, its user-data is another node's
    node.path("/run/sammy/state.json").unlink()
    node.path("/run/cloud-init/enabled").write_text("")
    node.configure(plane.add_node("n2", "--replace"), **QUICK)
    node.start()
    wait_for(node.status, "the socket")
    time.sleep(1.0)  # nothing to wait for: what must not happen is a beat before cloud-init said who this is
    assert plane.nodes()["n2"]["lastHeartbeatAt"] is None
    node.path("/run/cloud-init/.instance-id").write_text("i-2\n")
    wait_for(lambda: plane.nodes()["n2"]["lastHeartbeatAt"], "a beat as the new node")
    assert node.status()["instance_id"] == "i-2"
    assert node.status()["ready"]["state"] == "waiting" and not node.path(READY).exists()
    wait_for(lambda: key.exists() and key.read_text() != old_key, "a key of its own")
    assert node.path("/var/lib/sammy/agent/token").read_text() != old_token
    assert node.path("/var/lib/sammy/agent/instance-id").read_text() == "i-2\n"


def test_the_runs_of_another_machine_are_not_ours(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("failed", "the image's own build", run="20260101T000000-dddddddd", instance_id="i-image")
    node.provisioned("failed", "an earlier boot", run="20261123T000000-eeeeeeee", boot_id="another")
    node.provisioned("ready")
    node.start()
    wait_for(lambda: seen(plane)["status"] == "running", "ready")
    wait_for(lambda: seen(plane)["incidents"], "the earlier boot's failure, which nobody heard of yet")
    beats_go_on(plane)
    assert [incident["message"] for incident in seen(plane)["incidents"]] == ["provisioning failed: an earlier boot"]


def test_an_instance_id_that_changes_under_a_running_agent_begins_it_anew(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("running")
    node.start()
    beats_go_on(plane, 1)
    pid = node.pid
    wait_for(node.path("/var/lib/sammy/agent/instance-id").exists, "the instance id to be kept")
    node.provisioned("running", run="20261124T020000-cccccccc", instance_id="i-9")
    wait_for(lambda: node.status().get("instance_id") == "i-9", "the new instance id")
    beats_go_on(plane, 1)
    assert node.is_alive() and node.pid == pid


def test_the_nodes_key_is_made_here_and_signed_by_the_control_plane(plane: ControlPlane, node: Agent) -> None:
    node.start()
    certificate = node.path("/etc/sammy/tls/node.crt")
    wait_for(certificate.exists, "the certificate")
    key = node.path("/etc/sammy/tls/node.key")
    assert key.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", plane.ca_file, str(certificate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["n1"]


def test_somebody_elses_key_is_left_alone(plane: ControlPlane, node: Agent) -> None:
    node.path("/etc/sammy/tls/node.key").write_text("theirs")
    node.start()
    beats_go_on(plane)
    assert node.path("/etc/sammy/tls/node.key").read_text() == "theirs"
    assert not node.path("/etc/sammy/tls/node.crt").exists()


def test_network_changed_proves_the_contact_anew(plane: ControlPlane, node: Agent) -> None:
    node.configure(plane.add_node("n1", "--replace"))  # 60 s until the next beat of its own
    node.start()
    last = wait_for(lambda: seen(plane)["lastHeartbeatAt"], "the first beat")
    assert node.ask("network-changed docker-restart") == {"ok": True}
    wait_for(lambda: seen(plane)["lastHeartbeatAt"] != last, "a beat at once", 30)
    assert node.status()["network_changes"] == ["docker-restart"]
    assert (
        "known are activity, boot-log, history, messages, network-changed, outbox-requeue, say, session-activity, "
        "status, token-changed" in node.ask("nonsense")["error"]
    )


def test_no_secret_is_shown(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("ready")
    node.start()
    wait_for(lambda: node.status().get("ready", {}).get("firewall_applied"), "ready")
    tokens = [
        node.path(path).read_text().strip() for path in ("/etc/sammy/callback-token", "/var/lib/sammy/agent/token")
    ]
    shown = json.dumps(node.status()) + node.log() + Path(f"/proc/{node.pid}/cmdline").read_text()
    shown += Path(f"/proc/{node.pid}/environ").read_text()
    for token in tokens:
        assert token.split(".")[2] not in shown
    for path in node.root.rglob("*"):
        if path.is_file() and any(token.encode() in path.read_bytes() for token in tokens):
            assert path.stat().st_mode & 0o077 == 0, path


def test_without_a_control_plane_it_waits_and_says_so(node: Agent) -> None:
    node.path("/etc/sammy/agent.json").unlink()
    node.start()
    status = wait_for(node.status, "the socket")
    assert status["control_plane_url"] is None and status["config_problem"] is None
    assert node.ask("network-changed x") == {"ok": True}
    assert node.stop() == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"control_plane_url": "http://192.0.2.1"}, "agent-config-invalid"),
        ({"node_id": "../n1"}, "agent-config-invalid"),
        ({"ca_file": "/etc/sammy/missing.crt"}, "transport"),
    ],
    ids=["token in the clear", "no node", "no CA file"],
)
def test_a_wrong_configuration_is_said_and_heals(
    plane: ControlPlane, node: Agent, change: dict[str, Any], code: str
) -> None:
    path = node.path("/etc/sammy/agent.json")
    right = path.read_text()
    path.write_text(json.dumps({**json.loads(right), **change}))
    node.start()
    problem = wait_for(lambda: node.status().get("config_problem"), "the problem to be said")
    assert problem["code"] == code and problem["next_step"]
    path.write_text(right)
    wait_for(lambda: seen(plane)["lastHeartbeatAt"], "a beat once the cause is gone")
    assert node.status()["config_problem"] is None


def test_systemd_hears_ready_and_the_watchdog(
    plane: ControlPlane, node: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        node.start()
        heard: list[str] = []
        while not (any("WATCHDOG=1" in line for line in heard) and any("in contact" in line for line in heard)):
            heard.append(channel.recv(4096).decode())
        assert heard[0].startswith("READY=1\n"), heard
        node.stop()
        while "STOPPING=1" not in heard:
            heard.append(channel.recv(4096).decode())


def test_an_idle_agent_carries_no_server() -> None:
    code = (
        "import sys; from sammy_agent.daemon import agent; from sammy_agent.cli import main as cli; cli._parser(); "
        "heavy = {'tornado', 'jwt', 'cryptography', 'yaml', 'asyncio', 'sammy_agent.control_plane.api.app'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_events_and_metrics_answer_whether_the_agent_lives_or_not(plane: ControlPlane, node: Agent) -> None:
    root = ("--root", str(node.root))
    follower = subprocess.Popen(
        [sys.executable, "-m", "sammy_agent", "events", *root, "--follow", "--json", "--type", "agent."],
        cwd=TREE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    try:
        node.start()
        assert json.loads(follower.stdout.readline())["type"] == "agent.started", (
            "followed from before there was a file"
        )
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE) == 0
        follower.stdout.close()
    beats_go_on(plane)

    def told() -> list[tuple[str, str]]:
        made = command("events", *root, "--json", check=False)
        return [(event["type"], event["level"]) for event in json.loads(made.stdout or "[]")]

    wait_for(lambda: ("contact.made", "info") in told(), "the events of a living one")
    wait_for(lambda: command("metrics", *root, check=False).returncode == 0, "its first sample")
    node.stop(signal.SIGKILL)
    assert ("agent.started", "info") in told()
    assert "memory in use" in command("metrics", *root).stdout
    node.start()
    wait_for(lambda: ("agent.crashed", "warn") in told(), "how the last one ended")
