# SPDX-License-Identifier: Apache-2.0
"""Who may pass the management server's gate: each kind of wrong token, and the keys it is judged by."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from sammy_agent.daemon.server.auth import Authenticator, Unauthorized
from sammy_agent.daemon.server.jwks import FAILURE_INTERVAL, MAX_AGE, MIN_REFRESH_INTERVAL, JwksCache, KeysUnavailable
from tests.unit.agent.clock import Clock

ISSUER = "https://plane.example"
NOW = 1_800_000_000.0
OURS = rsa.generate_private_key(65537, 2048)
THEIRS = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str) -> dict[str, Any]:
    writer: Any = (
        jwt.algorithms.OKPAlgorithm if isinstance(key, ed25519.Ed25519PrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return {**json.loads(writer.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


class Plane:
    """What serves the key set: counts the questions, and may be away."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.away = False

    def __call__(self) -> str:
        self.asked += 1
        if self.away:
            raise KeysUnavailable("no route to host")
        return json.dumps({"keys": self.keys})


@pytest.fixture
def plane() -> Plane:
    return Plane(jwk(OURS, "k1"), jwk(EDWARDS, "k2"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(plane: Plane, clock: Clock, tmp_path: Path) -> JwksCache:
    return JwksCache(plane, str(tmp_path / "jwks.json"), clock)


@pytest.fixture
def check(keys: JwksCache) -> Callable[..., dict[str, Any]]:
    parts: Any = SimpleNamespace(node_id="n1", issuer=ISSUER, keys=keys, clock=lambda: NOW)
    gate = Authenticator(parts)

    def asked(token: str, **headers: str) -> dict[str, Any]:
        return asyncio.run(gate.authenticate({"Authorization": f"Bearer {token}", **headers}))

    return asked


def token(key: Any = OURS, algorithm: str = "RS256", kid: str | None = "k1", **changed: Any) -> str:
    """Make a management token; a claim given as None is left out."""
    claims = {"iss": ISSUER, "aud": "node-management", "type": "node-management", "node": "n1", "sub": "n1",
              "iat": NOW - 10, "exp": NOW + 3600, **changed}  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return encoded


def with_the_public_key_as_secret() -> str:
    """Make what opens every verifier that lets the token choose its algorithm."""
    import base64
    import hashlib
    import hmac

    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    claims = jwt.decode(token(), options={"verify_signature": False})
    text = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'k1'})}.{part(claims)}"
    made = hmac.new(pem(OURS), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "good",
    [
        token(),
        token(EDWARDS, "EdDSA", "k2"),
        token(kid=None),
        token(aud=["node-management", "other"]),
        token(exp=NOW - 30),
        token(nbf=NOW + 30),
        token(sub=None, iat=None),
    ],
    ids=["RS256", "EdDSA", "no kid, one key", "several audiences", "just over", "clock behind", "bare"],
)
def test_the_control_planes_own_passes(check: Any, good: str) -> None:
    assert check(good)["node"] == "n1"
    assert check(good, **{"X-SAM-Node-Id": "n1"})["type"] == "node-management"


@pytest.mark.parametrize(
    ("bad", "status", "words"),
    [
        (token(aud="workspace-callback"), 401, "audience"),
        (token(aud=None), 401, "aud"),
        (token(iss="https://other.example"), 401, "issuer is not https://plane.example"),
        (token(iss=None), 401, "iss"),
        (token(type="callback"), 401, "type"),
        (token(node="n2"), 403, "for node n2; this node is n1"),
        (token(node=None), 401, "names no node"),
        (token(exp=None), 401, "exp"),
        (token(exp=float("nan")), 401, "NaN is not JSON"),
        (token(exp=10**400), 401, "a number of more than 19 digits"),
        (token(exp="soon"), 401, "exp or nbf is not a number"),
        (f"{'W1tb' * 1000}.e30.AAAA", 401, "not a valid token: more than 1000 values"),
        (f"{'W1tb' * 200}.e30.AAAA", 401, "not a valid token: nested deeper than 4"),
        (token(exp=NOW - 90), 401, "expired 90 s ago"),
        (token(nbf=NOW + 90), 401, "begins in 90 s"),
        (token(THEIRS), 401, "signature"),
        (token(WEAK), 401, "signature"),
        (token(kid="k9"), 401, "not signed with a key of the control plane"),
        (token(OURS, kid="k2"), 401, "not signed with a key of the control plane"),
        (token("", "none"), 401, "signed with none"),
        (with_the_public_key_as_secret(), 401, "signed with HS256"),
        ("a.b.c", 401, "not a valid token"),
        ("x" * 9000, 401, "too long"),
        (token()[:-4] + "AAAA", 401, "signature"),
    ],
    ids=["another audience", "no audience", "another issuer", "no issuer", "a callback's", "another node's", "no node",
         "without end", "no number", "endless number", "words", "deep", "less deep", "expired", "not yet",
         "another's key", "a weak key",
         "unknown key", "the other key's name", "unsigned", "HS256 with the public key",
         "garbage", "endless", "tampered"],
)  # fmt: skip
def test_nobody_elses_does(check: Any, bad: str, status: int, words: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        check(bad)
    assert refused.value.status == status and words in refused.value.problem.text
    check(token())  # and it shuts nobody out


def test_a_header_for_another_node_is_refused(check: Any) -> None:
    with pytest.raises(Unauthorized) as refused:
        check(token(), **{"X-SAM-Node-Id": "n2"})
    assert refused.value.status == 403


@pytest.mark.parametrize("entry", [{**jwk(WEAK, "k1")}, {**jwk(OURS, "k1"), "use": "enc"}, {"kty": "oct", "k": "AAAA"}])
def test_keys_that_are_not_for_this_open_nothing(plane: Plane, check: Any, entry: dict[str, Any]) -> None:
    plane.keys = [entry]
    key = WEAK if entry["kty"] == "RSA" and len(entry["n"]) < 200 else OURS
    with pytest.raises(Unauthorized) as refused:
        check(token(key))
    assert refused.value.status == 401


def test_keys_that_cannot_be_had_are_a_503_until_they_can(plane: Plane, clock: Clock, check: Any) -> None:
    plane.away = True
    with pytest.raises(Unauthorized) as refused:
        check(token())
    assert refused.value.status == 503 and refused.value.retry_after
    assert "no route to host" in refused.value.problem.text
    with pytest.raises(Unauthorized):
        check(token())
    assert plane.asked == 1, "a failure is not repeated at once"
    plane.away = False
    clock.now += FAILURE_INTERVAL
    check(token())


def test_a_flood_of_unknown_keys_asks_once(plane: Plane, clock: Clock, check: Any) -> None:
    check(token())
    for number in range(50):
        with pytest.raises(Unauthorized) as refused:
            check(token(kid=f"x{number}"))
        assert refused.value.status == 401
    assert plane.asked == 1
    clock.now += MIN_REFRESH_INTERVAL
    plane.keys = [jwk(THEIRS, "k3")]
    check(token(THEIRS, kid="k3"))
    assert plane.asked == 2
    with pytest.raises(Unauthorized):
        check(token())  # the old key is gone from the set


def test_a_new_key_under_the_old_name_is_found(plane: Plane, clock: Clock, check: Any) -> None:
    check(token())
    plane.keys = [jwk(THEIRS, "k1")]
    clock.now += MIN_REFRESH_INTERVAL
    check(token(THEIRS))


def test_the_keys_outlive_an_outage_and_a_restart(
    plane: Plane, clock: Clock, check: Any, keys: JwksCache, tmp_path: Path
) -> None:
    check(token())
    plane.away = True
    clock.now += 10 * MAX_AGE
    check(token())
    end = time.monotonic() + 10
    while plane.asked < 2:  # beside the request
        assert time.monotonic() < end
        time.sleep(0.01)
    again = JwksCache(plane, str(tmp_path / "jwks.json"), clock)
    assert again.known == keys.known
    (tmp_path / "jwks.json").write_text("damaged")
    assert JwksCache(plane, str(tmp_path / "jwks.json"), clock).known == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": []}', '{"keys": {}}', "<html>", "[" * 100_000])
def test_what_is_no_key_set_replaces_none(plane: Plane, clock: Clock, check: Any, keys: JwksCache, text: str) -> None:
    check(token())
    clock.now += MIN_REFRESH_INTERVAL
    keys._fetch = lambda: text
    with pytest.raises(KeysUnavailable):
        keys.refresh()
    check(token())


def test_a_token_in_the_url_is_explained() -> None:
    parts: Any = SimpleNamespace(node_id="n1", issuer=ISSUER, keys=None, clock=lambda: NOW)
    with pytest.raises(Unauthorized, match="logs keep it") as refused:
        asyncio.run(Authenticator(parts).authenticate({}, has_token_in_url=True))
    assert refused.value.status == 401
