# SPDX-License-Identifier: Apache-2.0
"""Both halves against what a running SAM was asked and answered (recorded.py), never against each other."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization

from sammy_agent.base.wire import claims, endpoints, fields, ids, limits, statuses
from sammy_agent.control_plane.storage.database import Store
from sammy_agent.control_plane.storage.workspaces import WorkspaceStore
from sammy_agent.control_plane.token_signer import TokenSigner
from tests.agent.lab import ControlPlane, control_plane
from tests.contract import recorded
from tests.contract.recorded import CONVERSATIONS, Exchange

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


def header(plane: ControlPlane, token: dict[str, Any] | str | None) -> dict[str, str]:
    """Return the header with a well signed token of these claims, or with the text."""
    if token is None or isinstance(token, str):
        return {} if token is None else {"Authorization": token}
    now = int(time.time())
    said = {"iss": plane.url, "aud": "workspace-callback", "type": "callback", "iat": now, "exp": now + 600, **token}
    key: Any = serialization.load_pem_private_key((plane.folder / "signing.key").read_bytes(), None)
    known = {name: value for name, value in said.items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(known, key, algorithm='RS256')}"}


def ask(plane: ControlPlane, one: Exchange) -> requests.Response:
    body = one.body
    if not isinstance(body, bytes):
        body = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    sent = {"Content-Type": "application/json", **header(plane, one.token), **one.headers}
    return requests.request(
        one.method, plane.url + one.path, data=body, headers=sent, verify=plane.ca_file, timeout=30,
        allow_redirects=False,
    )  # fmt: skip


def shape(value: Any) -> Any:
    """Return what is the same in each answer of a kind: names, types, and that a text is a time."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, str) and TIME.fullmatch(value):
        return "a time"
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_embedded_control_plane_answers_as_sam_did(plane: ControlPlane, name: str) -> None:
    store = Store(str(plane.folder))
    for node in ("n1", "n2"):
        store.add_node(node, "none")
    assert WorkspaceStore(store).add("w1", "n1")
    store.close()
    for one in CONVERSATIONS[name]:
        answer = ask(plane, one)
        expected = one.ours[0] if one.ours else one.status
        assert answer.status_code == expected, (one.what, one.source, answer.text)
        if one.status == 204:
            assert answer.content == b"", one.what
        if one.answer is not None:
            assert shape(answer.json()) == shape(one.answer), (one.what, one.source)
            counts = {key: value for key, value in one.answer.items() if isinstance(value, int)}
            assert {key: answer.json()[key] for key in counts} == counts, one.what
        if answer.status_code >= 400:
            assert answer.json()["error"] == statuses.ERROR_CODES[expected], one.what
            assert isinstance(answer.json()["message"], str), one.what


def test_no_deviation_is_left_that_is_none() -> None:
    """Where the embedded control plane answers otherwise on purpose, it says why."""
    ours = [one for exchanges in CONVERSATIONS.values() for one in exchanges if one.ours]
    assert {one.what for one in ours} == {"garbage", "expired", "for another audience"}
    assert all(one.ours and one.ours[0] != one.status and one.ours[1] for one in ours)


def test_a_renewed_token_comes_past_half_of_its_life_alone(plane: ControlPlane) -> None:
    store = Store(str(plane.folder))
    store.add_node("n1", "none")
    store.close()
    day, now = 86400, int(time.time())
    for age, renewed in ((0.49, False), (0.52, True)):  # wire [15-17]
        begun = now - int(age * day)
        token = {**recorded.NODE, "iat": begun, "exp": begun + day}
        answer = ask(plane, Exchange("wire", "", f"{recorded.N}/heartbeat", {}, token, 200)).json()
        assert (claims.REFRESHED_TOKEN in answer) is renewed
    said = jwt.decode(answer[claims.REFRESHED_TOKEN], options={"verify_signature": False})
    assert set(said) == recorded.CALLBACK_CLAIMS and said["exp"] - said["iat"] == day
    assert (said["aud"], said["type"], said["scope"], said["workspace"]) == (
        "workspace-callback", "callback", "node", "n1",
    )  # fmt: skip


def test_a_management_token_says_what_sams_says(plane: ControlPlane) -> None:
    signer = TokenSigner.open(str(plane.folder))
    said = jwt.decode(signer.management_token(plane.url, "n1"), options={"verify_signature": False})
    assert set(said) >= recorded.MANAGEMENT_CLAIMS  # protocol 2.1
    assert (said["aud"], said["type"], said["node"], said["exp"] - said["iat"]) == (
        "node-management", "node-management", "n1", 3600,
    )  # fmt: skip


def test_the_key_set_and_a_node_have_sams_fields(plane: ControlPlane) -> None:
    store = Store(str(plane.folder))
    store.add_node("n1", "none")
    store.close()
    keys = requests.get(plane.url + endpoints.JWKS, verify=plane.ca_file, timeout=30)
    assert keys.headers["Cache-Control"] == "public, max-age=3600"
    (key,) = keys.json()["keys"]
    assert set(key) == set(recorded.JWKS_KEY) and re.fullmatch(r"key-\d{4}-\d\d", key["kid"])
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", claims.ALGORITHM)
    operator = (plane.folder / "operator-token").read_text().strip()
    node = ask(plane, Exchange("wire", "", recorded.N, None, f"Bearer {operator}", 200, method="GET")).json()
    assert set(recorded.NODE_FIELDS) <= set(node)
    assert (node["status"], node["healthStatus"], node["heartbeatStaleAfterSeconds"]) == ("creating", "unhealthy", 180)


def test_the_words_are_sams() -> None:
    assert set(statuses.MESSAGE_ROLES) == recorded.ROLES
    assert set(statuses.ACTIVITIES) == recorded.ACTIVITIES
    assert set(statuses.BOOT_LOG_STATUSES) == recorded.BOOT_LOG_STATUSES
    assert recorded.ERROR_CODES.items() <= statuses.ERROR_CODES.items()
    assert recorded.SESSION_FULL_ANSWER["error"] == statuses.SESSION_FULL
    assert (statuses.ARTIFACT_KIND, statuses.artifact_id(recorded.ULID)) == (
        recorded.ARTIFACT_BODY["kind"], recorded.ARTIFACT_BODY["artifactId"],
    )  # fmt: skip
    assert set(fields.METRICS) == set(recorded.HEARTBEAT_METRICS)
    assert set(fields.ACTIVITY) == set(recorded.ACTIVITY_BODY) - {"activity", "nodeId"}
    assert all(isinstance(recorded.ACTIVITY_BODY[name], kind) for name, kind in fields.ACTIVITY.items())


def test_the_numbers_are_sams() -> None:
    """protocol 1.1, 1.3 to 1.8; those of bodies are also tried at the control plane, above."""
    assert (limits.MAX_MESSAGES, limits.MAX_MESSAGES_BYTES, limits.MAX_CONTENT_UTF16_UNITS) == (100, 262144, 102400)
    assert recorded.SESSION_FULL_ANSWER["maxMessages"] == limits.MAX_MESSAGES_PER_SESSION
    assert (limits.MAX_ERRORS, limits.MAX_ERRORS_BYTES, limits.MAX_KEPT_BOOT_LOG_ENTRIES) == (10, 32768, 50)
    assert (limits.MAX_ERROR_MESSAGE, limits.MAX_ERROR_SOURCE, limits.MAX_ERROR_STACK) == (2048, 256, 4096)
    assert (limits.MAX_ARTIFACT_BYTES, limits.MAX_STATUS_ERROR) == (2 * 1024 * 1024, 2048)
    assert (limits.HEARTBEAT_STALE_SECONDS, limits.SESSION_INTERRUPTED_SECONDS) == (180, 300)
    assert (limits.HEARTBEAT_SECONDS, limits.SESSION_REPEAT_SECONDS) == (60, 60)
    assert (limits.CALLBACK_TOKEN_SECONDS, limits.CALLBACK_TOKEN_REFRESH_RATIO) == (86400, 0.5)


@pytest.mark.parametrize("path", sorted(recorded.PATHS))
def test_every_path_of_sams_is_one_of_ours(path: str) -> None:
    values = {"node": "n1", "workspace": "w1", "project": "p1", "session": "a1", "incident": recorded.ULID,
              "artifact": f"{recorded.ULID}-safe"}  # fmt: skip
    ours = [value for name, value in vars(endpoints).items() if name.isupper() and isinstance(value, str)]
    assert path in {template.format_map(values) for template in ours if template.startswith("/")}


def test_ids_are_sams() -> None:
    for one in (recorded.ULID, "n1", recorded.ULID.lower(), "node_1-x"):  # protocol 8, sessions
        assert ids.is_id(one)
    assert ids.is_ulid(recorded.ULID) and ids.is_sha256(recorded.CONTENT_SHA256)
