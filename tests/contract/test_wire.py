# SPDX-License-Identifier: Apache-2.0
"""The embedded control plane against the wire as it was observed: paths, fields, statuses."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.agent.lab import ControlPlane, control_plane

HEARTBEAT = {
    "activeWorkspaces": 0,
    "agentVersion": "dev",
    "metrics": {"cpuLoadAvg1": 0.42, "diskPercent": 31.5, "memoryPercent": 12.25},
    "nodeId": "n1",
}
ULID = "01JDEFGHJKMNPQRSTVWXYZ0123"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        running.add_node("n1")
        yield running


class Peer:
    """A client with a token of the control plane's own key."""

    def __init__(self, plane: ControlPlane, token: str | None = None, **how: Any) -> None:
        self.plane = plane
        self.token = plane.signer.callback_token(plane.url, "n1", **how) if token is None else token

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return requests.post(
            self.plane.url + path, headers=headers, verify=self.plane.ca_file, timeout=30, allow_redirects=False, **more
        )


def test_a_heartbeat_then_ready_as_observed(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    peer = Peer(plane)
    beat = peer.post("/api/nodes/n1/heartbeat", HEARTBEAT)
    assert beat.status_code == 200
    assert beat.headers["Content-Type"] == "application/json"
    document = beat.json()
    assert set(document) == {"status", "lastHeartbeatAt", "healthStatus"}
    assert (document["status"], document["healthStatus"]) == ("creating", "healthy")
    assert document["lastHeartbeatAt"].endswith("Z") and len(document["lastHeartbeatAt"]) == 24
    offset = parsedate_to_datetime(beat.headers["Date"]).timestamp() - time.time()
    assert abs(offset) < 30, "the Date header carries the clock that the agent compares with"

    # a heartbeat alone does not make it running
    assert plane.nodes()["n1"]["status"] == "creating"
    ready = peer.post("/api/nodes/n1/ready", {"agentVersion": "dev"})
    assert (ready.status_code, ready.json()["status"]) == (200, "running")
    assert set(ready.json()) == {"status", "readyAt"}
    node = plane.nodes()["n1"]
    assert (node["status"], node["healthStatus"], node["lastMetrics"]) == ("running", "healthy", HEARTBEAT["metrics"])
    assert node["heartbeatStaleAfterSeconds"] == 180
    assert peer.post("/api/nodes/n1/heartbeat", {}).json()["status"] == "running"


@pytest.mark.parametrize(
    ("age_share", "refreshed"), [(0.49, False), (0.52, True)], ids=["49 % of its life", "52 % of its life"]
)
def test_a_token_is_renewed_past_half_of_its_life(plane: ControlPlane, age_share: float, refreshed: bool) -> None:
    answer = Peer(plane, now=time.time() - age_share * 86400).post("/api/nodes/n1/heartbeat", HEARTBEAT).json()
    assert ("refreshedToken" in answer) is refreshed
    if refreshed:
        keys = requests.get(f"{plane.url}/.well-known/jwks.json", verify=plane.ca_file, timeout=30)
        assert keys.headers["Cache-Control"] == "public, max-age=3600"
        (key,) = keys.json()["keys"]
        assert {name: key[name] for name in ("kty", "use", "alg")} == {"kty": "RSA", "use": "sig", "alg": "RS256"}
        token = answer["refreshedToken"]
        assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": key["kid"]}
        public: Any = jwt.algorithms.RSAAlgorithm.from_jwk(json.dumps(key))
        claims = jwt.decode(token, public, ["RS256"], audience="workspace-callback")
        assert claims["exp"] - claims["iat"] == 86400
        same = {"iss": plane.url, "sub": "n1", "workspace": "n1", "type": "callback", "scope": "node"}
        assert {name: claims[name] for name in same} == same


def forged(plane: ControlPlane, **changed: Any) -> str:
    """Return a token that has everything right but what is changed; `key` signs it."""
    own = (plane.folder / "signing.key").read_bytes()
    key: Any = changed.pop("key", None) or serialization.load_pem_private_key(own, None)
    now = int(time.time())
    claims = {
        "iss": plane.url,
        "aud": "workspace-callback",
        "sub": "n1",
        "workspace": "n1",
        "type": "callback",
        "scope": "node",
        "iat": now,
        "exp": now + 600,
        **changed,
    }
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm="RS256")


BAD: dict[str, Callable[[ControlPlane], str]] = {
    "garbage": lambda plane: "nonsense",
    "expired": lambda plane: forged(plane, exp=int(time.time()) - 5),
    "another audience": lambda plane: forged(plane, aud="node-management"),
    "another type": lambda plane: forged(plane, type="session"),
    "signed by somebody else": lambda plane: forged(plane, key=rsa.generate_private_key(65537, 2048)),
    "unsigned": lambda plane: (
        base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + "." + forged(plane).split(".")[1] + "."
    ),
    "of another node": lambda plane: forged(plane, sub="n2", workspace="n2"),
    "without an end": lambda plane: forged(plane, exp=None),
}


@pytest.mark.parametrize("route", ["heartbeat", "ready", "errors", "origin-ca-certificate"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_401_here(plane: ControlPlane, kind: str, route: str) -> None:
    answer = Peer(plane, BAD[kind](plane)).post(f"/api/nodes/n1/{route}", {"errors": []})
    assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")


def test_the_good_token_of_those_tests_is_good(plane: ControlPlane) -> None:
    assert Peer(plane, forged(plane)).post("/api/nodes/n1/heartbeat", {}).status_code == 200


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Basic eDp5"}]
)
def test_no_token_is_401(plane: ControlPlane, header: dict[str, str]) -> None:
    answer = requests.post(
        f"{plane.url}/api/nodes/n1/heartbeat", json={}, headers=header, verify=plane.ca_file, timeout=30
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("route", "scope", "status"),
    [
        ("heartbeat", "workspace", 403),
        ("ready", "workspace", 403),
        ("errors", "workspace", 403),
        ("heartbeat", None, 200),
        ("errors", None, 403),
    ],
)
def test_scopes(plane: ControlPlane, route: str, scope: str | None, status: int) -> None:
    answer = Peer(plane, forged(plane, scope=scope)).post(f"/api/nodes/n1/{route}", {"errors": []})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 200),
        ({"unknown": {"deep": [1]}}, 200),
        ({"metrics": {"cpuLoadAvg1": None}}, 400),
        ({"metrics": {"memoryPercent": "12"}}, 400),
        ({"metrics": None}, 400),
        ({"metrics": {"cpuLoadAvg1": float("nan")}}, 400),
        ({"phase": {"x": 1}, "reason": 5, "steps": "x", "durationMs": None}, 200),
        ({"activeWorkspaces": "1"}, 400),
        ([], 400),
    ],
    ids=repr,
)
def test_heartbeat_bodies(plane: ControlPlane, body: Any, status: int) -> None:
    raw = json.dumps(body).encode()  # not json=: requests refuses a NaN itself
    answer = Peer(plane).post("/api/nodes/n1/heartbeat", data=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == status


def test_the_body_is_judged_before_the_token(plane: ControlPlane) -> None:
    headers = {"Content-Type": "application/json"}
    for route in ("heartbeat", "ready", "errors"):
        answer = requests.post(
            f"{plane.url}/api/nodes/n1/{route}", data="{", headers=headers, verify=plane.ca_file, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "BAD_REQUEST"), route


def test_a_heartbeat_without_content_type_is_200_and_its_metrics_are_lost(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    answer = Peer(plane).post("/api/nodes/n1/heartbeat", data=json.dumps(HEARTBEAT).encode())
    assert answer.status_code == 200
    assert plane.nodes()["n1"]["lastMetrics"] is None


def test_an_unknown_node(plane: ControlPlane) -> None:
    peer = Peer(plane, forged(plane, sub="ghost"))
    assert peer.post("/api/nodes/ghost/heartbeat", {}).status_code == 404
    assert peer.post("/api/nodes/ghost/ready").status_code == 200
    assert "ghost" not in plane.nodes()


def test_unknown_paths_tell_nothing(plane: ControlPlane) -> None:
    assert Peer(plane).post("/api/nodes/n1/nothing-here").status_code == 401
    assert requests.get(f"{plane.url}/api/nodes/n1", verify=plane.ca_file, timeout=30).status_code == 401
    as_node = requests.get(
        f"{plane.url}/api/nodes",
        headers={"Authorization": f"Bearer {Peer(plane).token}"},
        verify=plane.ca_file,
        timeout=30,
    )
    assert as_node.status_code == 401, "a node's token is no operator's"


def entry(**changed: Any) -> dict[str, Any]:
    return {"incidentId": ULID, "level": "error", "message": "m", "source": "s", "stack": "", **changed}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"errors": []}, 204),
        ({"errors": [entry(message=None)]}, 204),
        ({"errors": [entry(level={"x": 1}, source=[1], stack=None, context="y")]}, 204),
        ({"errors": [entry(incidentId="not a ulid")]}, 400),
        ({"errors": "x"}, 400),
        ({}, 400),
        ({"errors": [entry()] * 11}, 400),
        ({"errors": [entry(message="x" * 33000)]}, 400),
    ],
    ids=["none", "no message", "odd types", "bad id", "no array", "nothing", "eleven", "too large"],
)
def test_errors_bodies(plane: ControlPlane, body: Any, status: int) -> None:
    answer = Peer(plane).post("/api/nodes/n1/errors", body)
    assert (answer.status_code, answer.content == b"") == (status, status == 204)


def test_an_incident_is_kept_once_and_shown(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    peer = Peer(plane)
    for _ in range(2):
        assert peer.post("/api/nodes/n1/errors", {"errors": [entry(message="docker " * 1000)]}).status_code == 204
    node = plane.nodes()["n1"]
    (incident,) = node["incidents"]
    assert len(incident["message"]) == 2048
    assert node["errorMessage"] == incident["message"] and node["status"] == "creating"


def test_that_a_boot_began_is_no_failure(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    peer = Peer(plane)
    peer.post("/api/nodes/n1/errors", {"errors": [entry(level="info", message="provisioning started")]})
    node = plane.nodes()["n1"]
    assert node["errorMessage"] is None and node["incidents"][0]["message"] == "provisioning started"


def request_for(key: Any, sign_with: Any = None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything.example")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(sign_with or key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def test_a_nodes_key_is_signed_once(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    peer, path = Peer(plane), "/api/nodes/n1/origin-ca-certificate"
    key = ec.generate_private_key(ec.SECP256R1())
    answer = peer.post(path, data=request_for(key), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200
    certificate = x509.load_pem_x509_certificate(answer.content)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"], "the node's id, not what its request asks for"
    ca = x509.load_pem_x509_certificate(Path(plane.ca_file).read_bytes())
    ca.public_key().verify(  # type: ignore[union-attr,call-arg]
        certificate.signature,
        certificate.tbs_certificate_bytes,
        ec.ECDSA(hashes.SHA256()),  # type: ignore[arg-type]
    )
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False

    assert peer.post(path, data=request_for(key)).status_code == 200, "a lost answer is asked for again"
    another = request_for(ec.generate_private_key(ec.SECP256R1()))
    assert peer.post(path, data=another).status_code == 409, "a stolen token gets no second certificate"
    assert peer.post(path, data=b"no request").status_code == 400
    assert peer.post(path, data=request_for(rsa.generate_private_key(65537, 1024))).status_code == 400


def test_a_boot_token_is_good_until_its_first_use_and_a_day(plane: ControlPlane) -> None:
    data = plane.add_node("n1", "--replace")
    boot = Peer(plane, data["write_files"][0]["content"])
    assert boot.post("/api/nodes/n1/errors", {"errors": [entry()]}).status_code == 204, "before any heartbeat"
    refreshed = boot.post("/api/nodes/n1/heartbeat", {}).json()["refreshedToken"]
    again = boot.post("/api/nodes/n1/heartbeat", {})
    assert "refreshedToken" in again.json(), "who lost the answer gets another"
    assert "refreshedToken" not in Peer(plane, refreshed).post("/api/nodes/n1/heartbeat", {}).json()

    import sqlite3

    with sqlite3.connect(plane.folder / "control-plane.db", timeout=30) as database:
        database.execute("UPDATE nodes SET boot_token_used_at = boot_token_used_at - 86401 WHERE id='n1'")
    refused = boot.post("/api/nodes/n1/heartbeat", {})
    assert (refused.status_code, "used up" in refused.json()["message"]) == (401, True)
    assert Peer(plane, refreshed).post("/api/nodes/n1/heartbeat", {}).status_code == 200

    fresh = Peer(plane, plane.token("n1"))
    assert fresh.post("/api/nodes/n1/heartbeat", {}).status_code == 200
    assert boot.post("/api/nodes/n1/heartbeat", {}).status_code == 401, "the newer token took its place"


def test_answers_are_gzip_when_offered(plane: ControlPlane) -> None:
    answer = requests.get(f"{plane.url}/.well-known/jwks.json", verify=plane.ca_file, timeout=30)
    assert "Accept-Encoding" in answer.headers["Vary"]


def test_its_secrets_are_files_of_its_own(plane: ControlPlane) -> None:
    assert plane.folder.stat().st_mode & 0o777 == 0o700
    for name in ("ca.key", "server.key", "signing.key", "operator-token", "control-plane.db"):
        assert (plane.folder / name).stat().st_mode & 0o777 == 0o600, name


def test_nodes_tokens_and_keys_survive_a_restart(plane: ControlPlane) -> None:
    plane.add_node("n1", "--replace")
    peer = Peer(plane)
    assert peer.post("/api/nodes/n1/ready").status_code == 200
    keys = requests.get(f"{plane.url}/.well-known/jwks.json", verify=plane.ca_file, timeout=30).json()
    assert plane.stop() == 0
    plane.start()
    assert requests.get(f"{plane.url}/.well-known/jwks.json", verify=plane.ca_file, timeout=30).json() == keys
    assert peer.post("/api/nodes/n1/heartbeat", {}).json()["status"] == "running"
