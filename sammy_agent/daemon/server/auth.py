# SPDX-License-Identifier: Apache-2.0
"""Authentication: a management token of this node's control plane, and nothing else.

SAM's agent also takes the token from the URL, where proxies and logs keep it; here only the header counts. `verify`
decides and does no I/O.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime.log_throttle import LogThrottle
from sammy_agent.base.untrusted import InvalidJSON, read_jwt
from sammy_agent.base.wire.claims import MANAGEMENT_AUDIENCE, MANAGEMENT_TYPE, NODE_ID_HEADER
from sammy_agent.daemon.server.context import ServerContext
from sammy_agent.daemon.server.jwks import MAX_AGE, MIN_REFRESH_INTERVAL, JwksCache, KeysUnavailable

LEEWAY = 60.0  # seconds that two clocks may differ by
MAX_TOKEN_CHARACTERS = 8192
RETRY_AFTER = 5
LOG_INTERVAL = 10.0  # seconds
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Unauthorized(AgentError):
    """A request is not authorised; `status` is the HTTP status that says so."""

    code = Code.MANAGEMENT_REFUSED

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(message)


class UnknownKey(Unauthorized):
    """No known key made the signature; a fresh key set may hold one that did."""

    code = Code.MANAGEMENT_NO_KEY


class Authenticator:
    """Authenticates requests of the control plane. One per server; of the loop's thread."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._keys = context.keys
        self.log_throttle = LogThrottle(LOG_INTERVAL)
        self._parsed_from: tuple[dict[str, Any], ...] | None = None
        self._read: list[tuple[str | None, PublicKey]] = []
        self._refreshing: asyncio.Future[KeysUnavailable | None] | None = None

    async def authenticate(self, headers: Mapping[str, str], has_token_in_url: bool = False) -> dict[str, Any]:
        """Return the claims of a request's token.

        :raises Unauthorized: 401 no or no valid token, 403 it is another node's, 503 the keys cannot be had.
        """
        token = bearer(headers.get("Authorization", ""), has_token_in_url)
        claims = await self._verified(token)
        node = self._context.node_id
        check_claims(claims, node, self._context.clock())
        sent = headers.get(NODE_ID_HEADER)
        if sent is not None and sent != node:
            raise Unauthorized(403, f"{NODE_ID_HEADER} says {sent[:128]}; this node is {node}")
        return claims

    async def _verified(self, token: str) -> dict[str, Any]:
        before = self._keys.known
        if before and not self._keys.is_fresh:
            self._refresh_keys(MAX_AGE)  # beside this request, which goes on with the old ones
        try:
            return verify(token, self._public_keys(), self._context.issuer)
        except UnknownKey:
            unavailable = await asyncio.shield(self._refresh_keys(MIN_REFRESH_INTERVAL))
            if unavailable is not None:
                message = f"the control plane's keys cannot be fetched: {unavailable.problem.text}"
                raise Unauthorized(503, message, RETRY_AFTER) from unavailable
            if self._keys.known is before:
                raise
        return verify(token, self._public_keys(), self._context.issuer)

    def _refresh_keys(self, min_interval: float) -> asyncio.Future[KeysUnavailable | None]:
        """Begin to fetch the keys, or join the fetch that is under way: a flood of strangers takes one thread."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().run_in_executor(None, _refresh, self._keys, min_interval)
        return self._refreshing

    def _public_keys(self) -> list[tuple[str | None, PublicKey]]:
        if self._parsed_from is not self._keys.known:
            self._parsed_from = self._keys.known
            read = ((entry.get("kid"), public_key(entry)) for entry in self._parsed_from)
            self._read = [(kid, key) for kid, key in read if key is not None]
        return self._read


def _refresh(keys: JwksCache, min_interval: float) -> KeysUnavailable | None:
    try:
        keys.refresh(min_interval=min_interval)
    except KeysUnavailable as problem:
        return problem
    return None


def bearer(header: str, has_token_in_url: bool = False) -> str:
    """Return the token of an Authorization header. Unauthorized (401) when there is none."""
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer" and token:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized(401, "the token is too long")
        return token
    if has_token_in_url:
        raise Unauthorized(401, "a token in a URL is not taken, logs keep it: send it as Authorization: Bearer")
    raise Unauthorized(401, "a management token is required: Authorization: Bearer")


def public_key(entry: dict[str, Any]) -> PublicKey | None:
    """Return the key of a JWKS's entry; None for one that is not for this use, or too weak."""
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    reader: Any = {"RSA": jwt.algorithms.RSAAlgorithm, "OKP": jwt.algorithms.OKPAlgorithm}.get(entry.get("kty", ""))
    if reader is None:
        return None
    try:
        key = reader.from_jwk(json.dumps(entry))
    except (jwt.InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size >= 2048 else None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else None


def verify(token: str, keys: list[tuple[str | None, PublicKey]], issuer: str) -> dict[str, Any]:
    """Return the claims of a token that one of the keys signed, for this audience and by this issuer; no times yet.

    The key says which algorithm is right, never the token: HS256 with a public key as its secret opens nothing.

    :raises UnknownKey: 401; none of the keys made it.
    :raises Unauthorized: 401; it is wrong in another way.
    """
    try:
        header, _ = read_jwt(token)
    except InvalidJSON as error:
        raise Unauthorized(401, f"that is not a valid token: {error.problem.text}") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ("RS256", "EdDSA"):
        raise Unauthorized(401, f"the token is signed with {str(algorithm)[:32]}; RS256 and EdDSA are taken")
    kind = rsa.RSAPublicKey if algorithm == "RS256" else ed25519.Ed25519PublicKey
    fitting = [key for name, key in keys if isinstance(key, kind) and kid in (None, name)]
    if not fitting or (kid is None and len(fitting) > 1):
        raise UnknownKey(401, "the token was not signed with a key of the control plane")
    key: Any  # PyJWT 2.6 declares that it takes text alone
    for key in fitting:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=MANAGEMENT_AUDIENCE,
                issuer=issuer,
                # the times are checked by the control plane's clock, which PyJWT does not know
                options={"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise Unauthorized(401, f"the token is not for this: {_words(error, issuer)}") from error
    raise UnknownKey(401, "the token's signature is not the control plane's")


def _words(error: Exception, issuer: str) -> str:
    if isinstance(error, jwt.InvalidIssuerError):
        return f"its issuer is not {issuer}"
    if isinstance(error, jwt.InvalidAudienceError):
        return f"its audience is not {MANAGEMENT_AUDIENCE}"
    return str(error)


def check_claims(claims: Mapping[str, Any], node: str, now: float) -> None:
    """Check what a genuine token says; `now` in seconds since the epoch.

    :raises Unauthorized: 401 its time is not now or it is of another type, 403 it is another node's.
    """
    if claims.get("type") != MANAGEMENT_TYPE:
        raise Unauthorized(401, f"the token's type is not {MANAGEMENT_TYPE}")
    ends, begins = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
    if ends is None or begins is None:
        raise Unauthorized(401, "exp or nbf is not a number")
    if now >= ends + LEEWAY:
        raise Unauthorized(401, f"the token expired {now - ends:.0f} s ago by this node's clock")
    if now < begins - LEEWAY:
        raise Unauthorized(401, f"the token begins in {begins - now:.0f} s by this node's clock")
    named = claims.get("node")
    if not isinstance(named, str):
        raise Unauthorized(401, "the token names no node")
    if named != node:
        raise Unauthorized(403, f"the token is for node {named[:128]}; this node is {node}")


def _seconds(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if -(2**53) < value < 2**53 else None  # JSON's NaN and numbers without end are none
