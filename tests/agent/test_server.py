# SPDX-License-Identifier: Apache-2.0
"""The agent's own server, in the agent's process: loaded when it is needed, truthful, and never in the way."""

from __future__ import annotations

import contextlib
import hashlib
import io
import signal
import socket
import ssl
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509

from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.token_signer import TokenSigner
from sammy_agent.daemon.credentials import certificate_request
from tests.agent.lab import Agent, ControlPlane, wait_for


def server(node: Agent) -> dict[str, Any]:
    found: dict[str, Any] = node.status().get("server") or {}
    return found


def problem(node: Agent) -> str:
    return str((server(node).get("problem") or {}).get("code", ""))


def listening(node: Agent) -> None:
    wait_for(lambda: server(node).get("state") in ("listening", "serving"), "the server to listen")


def get(plane: ControlPlane, node: Agent, path: str, token: str | None = "", **more: Any) -> requests.Response:
    """Ask the node's server as its control plane does; `token` None sends none."""
    if token == "":
        token = TokenSigner.open(str(plane.folder)).management_token(plane.url, "n1")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(
        f"https://127.0.0.1:{node.port}{path}", headers=headers, verify=plane.ca_file, timeout=120, **more
    )


@contextlib.contextmanager
def connected(plane: ControlPlane, node: Agent, address: str = "127.0.0.1") -> Iterator[ssl.SSLSocket]:
    """Connect to the node by its name; that it is the node is checked."""
    context = ssl.create_default_context(cafile=plane.ca_file)
    with (
        socket.create_connection((address, node.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="n1") as channel,
    ):
        yield channel


def loaded(node: Agent) -> bool:
    """Tell whether the process has the server's libraries in its memory."""
    return "cryptography" in Path(f"/proc/{node.pid}/maps").read_text()


def test_the_server_is_loaded_by_the_first_connection(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("running")
    node.path("/var/lib/sammy/outgoing/left-by-a-kill/package.tar.gz").write_text("")
    node.start()
    listening(node)
    assert not node.path("/var/lib/sammy/outgoing").exists()
    wait_for(lambda: node.status()["contact"]["state"] == "ok", "contact")
    assert not loaded(node) and server(node)["state"] == "listening"
    assert server(node)["families"] in (["ipv4"], ["ipv4", "ipv6"])

    assert get(plane, node, "/health", None).json() == {"status": "provisioning"}
    assert loaded(node) and server(node)["state"] == "serving"
    assert node.stop() == 0


def test_it_is_served_by_ipv6_too(plane: ControlPlane, node: Agent) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.fail("this machine has no IPv6 on loopback")
    node.start()
    listening(node)
    with connected(plane, node, "::1") as channel:
        channel.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert channel.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("ready", "healthy"), ("degraded", "degraded"), ("failed", "failed"), ("running", "provisioning")],
)
def test_health_tells_the_truth(plane: ControlPlane, node: Agent, outcome: str, status: str) -> None:
    node.provisioned(outcome, "docker: dockerd did not start")
    node.start()
    listening(node)
    assert get(plane, node, "/health", None).json() == {"status": status}, "strangers hear one word"
    told = get(plane, node, "/health").json()
    assert told["status"] == status and told["provisioning"]["reason"] == "docker: dockerd did not start"


def test_events_hold_those_of_provisioning_newest_first(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("failed", "docker: dockerd did not start")
    node.start()
    listening(node)
    wait_for(lambda: plane.nodes()["n1"]["incidents"], "the run to be in the store")
    document = get(plane, node, "/events").json()["events"]
    (newest,) = [one for one in document if one["message"].startswith("docker failed")]
    assert set(newest) == {"id", "nodeId", "level", "type", "message", "detail", "createdAt"}
    assert (newest["nodeId"], newest["level"], newest["type"]) == ("n1", "error", "provision.docker")
    assert newest["createdAt"].endswith("Z") and newest["detail"]["durationMs"] == 200.0 and len(newest["id"]) == 16
    times = [one["createdAt"] for one in document if one["type"].startswith("provision.")]
    assert len(times) == 4 and times == sorted(times, reverse=True)
    paged: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(plane, node, f"/events?limit=3&cursor={cursor}").json()
        paged, cursor = [*paged, *page["events"]], page["nextCursor"]
    assert paged == document
    for wrong in ("0", "-1", "x", "1e3", "9" * 30):
        assert get(plane, node, f"/events?limit={wrong}").status_code == 400, wrong
    assert get(plane, node, "/events?cursor=x").status_code == 400


def test_system_info_has_the_wires_shape(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    told = get(plane, node, "/system-info").json()
    assert set(told) == {"cpu", "memory", "disk", "network", "uptime", "docker", "software", "agent"}
    assert told["cpu"]["numCpu"] >= 1 and told["uptime"]["seconds"] > 0
    assert told["memory"]["usedBytes"] + told["memory"]["availableBytes"] == told["memory"]["totalBytes"]
    assert told["docker"]["version"] or told["docker"]["error"]
    assert told["agent"]["residentBytes"] > 10_000_000


def test_the_debug_package_is_whole_and_gives_no_token_away(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("failed", "docker: dockerd did not start")
    node.start()
    listening(node)
    wait_for(lambda: plane.nodes()["n1"]["incidents"], "the failure's report")
    answer = get(plane, node, "/debug-package")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="debug-n1-2')
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["X-Content-SHA256"] == hashlib.sha256(answer.content).hexdigest()
    secret = node.path("/var/lib/sammy/agent/token").read_text().strip()
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        texts = [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
    assert len(texts) > 10 and not any(secret.encode() in text for text in texts)
    assert not list(node.path("/var/lib/sammy/outgoing").iterdir())


def test_nobody_is_served_before_there_is_a_certificate(plane: ControlPlane, node: Agent) -> None:
    plane.stop()
    node.start()
    wait_for(lambda: problem(node) == "no-certificate", "the lack to be said")
    assert server(node)["state"] == "off"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port), timeout=30)
    plane.start()
    listening(node)
    assert server(node)["problem"] is None
    assert get(plane, node, "/health", None).status_code == 200


def test_a_renewed_certificate_is_served_without_a_restart(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    assert get(plane, node, "/health", None).status_code == 200
    first = served(plane, node)
    key, certificate = node.path("/etc/sammy/tls/node.key"), node.path("/etc/sammy/tls/node.crt")

    key.rename(key.with_suffix(".old"))
    request = certificate_request.request(str(key), str(certificate), "n1")
    node.ask("token-changed")  # wakes every duty; the new key lacks its certificate now
    wait_for(lambda: problem(node) == "certificate-unusable", "the pair that is none to be said")
    assert served(plane, node) == first, "the old one is served on"
    certificate.write_text(CertificateAuthority(str(plane.folder)).sign_node(request, "n1", "127.0.0.1")[0])
    node.ask("token-changed")
    wait_for(lambda: served(plane, node) != first, "the new certificate")
    assert server(node)["problem"] is None


def served(plane: ControlPlane, node: Agent) -> int:
    """Return the serial number of the certificate that is shown."""
    with connected(plane, node) as channel:
        return x509.load_der_x509_certificate(channel.getpeercert(binary_form=True) or b"").serial_number


def test_a_taken_port_is_said_and_waited_for(plane: ControlPlane, node: Agent) -> None:
    with socket.create_server(("127.0.0.1", node.port)):
        node.start()
        wait_for(lambda: problem(node) == "port-taken", "the taken port to be said")
        wait_for(lambda: node.status()["contact"]["state"] == "ok", "contact, which does not wait for it")
        assert f"ss -ltnp 'sport = :{node.port}'" in server(node)["problem"]["next_step"]
    listening(node)
    told = wait_for(lambda: get(plane, node, "/events").json()["events"], "events")
    assert [one["type"] for one in told if one["type"].startswith("server.")] == ["server.listening", "server.shut"]


def test_fifty_idle_connections_hinder_nobody(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    with contextlib.ExitStack() as idle:
        for _ in range(50):
            idle.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=30))
        assert get(plane, node, "/events").status_code == 200
        assert 50 <= server(node)["connections"] <= 52
        assert node.stop() == 0


def test_keys_that_were_away_at_first_are_had_later_and_kept(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    token = TokenSigner.open(str(plane.folder)).management_token(plane.url, "n1")
    plane.stop()
    away = get(plane, node, "/events", token)
    assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
    assert "keys cannot be fetched" in away.json()["error"] and node.is_alive()
    plane.start()
    wait_for(lambda: get(plane, node, "/events", token).status_code == 200, "the keys", 30)

    plane.stop()
    node.stop(signal.SIGKILL)
    node.start()
    listening(node)
    assert get(plane, node, "/events", token).status_code == 200, (
        "what cannot reach its control plane is to be debugged"
    )
    plane.start()


def test_a_signing_key_made_anew_is_learnt(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    assert get(plane, node, "/events").status_code == 200
    node.stop(signal.SIGKILL)
    plane.stop()
    (plane.folder / "signing.key").unlink()
    plane.start()
    node.start()
    listening(node)
    assert get(plane, node, "/events").status_code == 200, "the kept keys are old, and their names may be the same"


def test_refusals_are_words_and_never_hold_a_token(plane: ControlPlane, node: Agent) -> None:
    node.start()
    listening(node)
    signer = TokenSigner.open(str(plane.folder))
    wrong = {
        401: signer.callback_token(plane.url, "n1"),
        403: signer.management_token(plane.url, "n2"),
    }
    for status, token in wrong.items():
        answer = get(plane, node, "/debug-package", token)
        assert answer.status_code == status and set(answer.json()) == {"error"}
    in_url = get(plane, node, f"/events?token={signer.management_token(plane.url, 'n1')}", None)
    assert in_url.status_code == 401 and "logs keep it" in in_url.json()["error"]
    assert get(plane, node, "/nothing").status_code == 404
    assert "eyJ" not in node.log()
    assert node.status()["inbound"]["visits"] == 0
