# SPDX-License-Identifier: Apache-2.0
"""Callback and management tokens: RS256 JWTs with SAM's claims, and the key set that verifies them.

A node's first token travels in its user-data and may lie there for long before the machine is booted: it is good
until its first use (the first heartbeat, which answers with a token of 24 h), and after that for 24 h more, so that
a node which lost that answer or its disk in the same minute still gets in.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.untrusted import read_jwt
from sammy_agent.base.wire import claims
from sammy_agent.base.wire.limits import (
    CALLBACK_TOKEN_REFRESH_RATIO,
    CALLBACK_TOKEN_SECONDS,
    MANAGEMENT_TOKEN_SECONDS,
)

UNUSED_LIFE = 10 * 365 * 86400.0


class TokenRefused(ControlPlaneError):
    """A token is not accepted here; `status` is the HTTP status of the answer."""

    code = Code.TOKEN_REFUSED

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Claims:
    """What a verified callback token says; times in seconds since the epoch."""

    subject: str
    scope: str | None
    issued: float
    expires: float
    token_id: str | None
    is_boot: bool

    def wants_refresh(self, now: float) -> bool:
        """Tell whether half of its life is over."""
        return (
            self.is_boot or (now - self.issued) / max(1.0, self.expires - self.issued) >= CALLBACK_TOKEN_REFRESH_RATIO
        )


class TokenSigner:
    """Signs and verifies with the one RSA key of a control plane's state directory."""

    def __init__(self, key: rsa.RSAPrivateKey, kid: str) -> None:
        self._key = key
        self._kid = kid

    def __repr__(self) -> str:
        return f"<TokenSigner {self._kid}>"

    @classmethod
    def open(cls, folder: str) -> TokenSigner:
        """Return the signer of a state directory, making its key (0600) the first time."""
        path = os.path.join(folder, "signing.key")
        text = files.read(path)
        if text is None:
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            text = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode()
            files.write(path, text, mode=files.PRIVATE)
        key = serialization.load_pem_private_key(text.encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ControlPlaneError(
                f"{path} is not an RSA key",
                "Remove it: a new one is made at the next start, and every node needs a new token",
            )
        # The wire's kid names a month; here it is the month the key was made in, so that it changes with the key.
        made_at = datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)
        return cls(key, f"key-{made_at:%Y-%m}")

    def callback_token(
        self,
        issuer: str,
        node: str,
        *,
        scope: str = claims.NODE_SCOPE,
        life: float = CALLBACK_TOKEN_SECONDS,
        now: float | None = None,
    ) -> str:
        """Return a callback token; `life` in seconds, `now` in seconds since the epoch."""
        return self._sign(issuer, node, life, now, {**_callback(node), "scope": scope})

    def boot_token(self, issuer: str, node: str, token_id: str, *, life: float = UNUSED_LIFE) -> str:
        """Return a token for a node's user-data; `life` in seconds is how long it may lie unused."""
        more = {**_callback(node), "scope": claims.NODE_SCOPE, "jti": token_id, "boot": True}
        return self._sign(issuer, node, life, None, more)

    def management_token(self, issuer: str, node: str, *, life: float = MANAGEMENT_TOKEN_SECONDS) -> str:
        """Return a token that opens the node's own server to us; `issuer` is our address as the node has it."""
        more = {"aud": claims.MANAGEMENT_AUDIENCE, "type": claims.MANAGEMENT_TYPE, "node": node}
        return self._sign(issuer, node, life, None, more)

    def _sign(self, issuer: str, subject: str, life: float, now: float | None, more: dict[str, Any]) -> str:
        issued = int(time.time() if now is None else now)
        document = {"iss": issuer, "sub": subject, "iat": issued, "exp": issued + int(life), **more}
        key: Any = self._key  # PyJWT 2.6 declares that it takes text alone
        return jwt.encode(document, key, algorithm=claims.ALGORITHM, headers={"kid": self._kid})

    def verify(self, token: str) -> Claims:
        """Return a token's claims.

        The issuer is not compared: only this key signs for this control plane, and its address may change.

        :raises TokenRefused: 401; it is garbage, expired, for another audience or signed by another key.
        """
        key: Any = self._key.public_key()
        try:
            read_jwt(token)
            said = jwt.decode(
                token,
                key,
                algorithms=[claims.ALGORITHM],
                audience=claims.CALLBACK_AUDIENCE,
                options={"require": ["exp", "iat", "sub"], "verify_iat": False},
            )
        except (jwt.InvalidTokenError, ValueError) as error:  # InvalidJSON is one
            raise TokenRefused(401, f"Invalid callback token: {error}") from error
        if said.get("type") != claims.CALLBACK_TYPE:
            raise TokenRefused(401, "Invalid callback token: its type is not callback")
        return Claims(
            subject=str(said["sub"]),
            scope=said.get("scope"),
            issued=float(said["iat"]),
            expires=float(said["exp"]),
            token_id=said.get("jti"),
            is_boot=said.get("boot") is True,
        )

    def jwks(self) -> dict[str, Any]:
        """Return the key set that /.well-known/jwks.json serves."""
        numbers = self._key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "kty": "RSA",
                    "n": _base64url(numbers.n),
                    "e": _base64url(numbers.e),
                    "kid": self._kid,
                    "use": "sig",
                    "alg": claims.ALGORITHM,
                }
            ]
        }


def _callback(subject: str) -> dict[str, Any]:
    return {"aud": claims.CALLBACK_AUDIENCE, "workspace": subject, "type": claims.CALLBACK_TYPE}


def new_token_id() -> str:
    """Return an id for a boot token."""
    return secrets.token_hex(8)


def _base64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
