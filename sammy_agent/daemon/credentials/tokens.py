# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens as values: subject, scope and expiry as their claims say; no files, no requests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sammy_agent.base.errors import TokenUnusable
from sammy_agent.base.untrusted import InvalidJSON, read_jwt

NEW_TOKEN_HINT = "Get a new token for this node from its control plane and give it to `sammy-agent token set`"

MAX_TOKEN_CHARS = 16384


Kind = TypeVar("Kind", bound="Token")


@dataclass(frozen=True)
class Token:
    """A bearer token and what it says about itself, unverified; times in seconds since the epoch."""

    text: str = field(repr=False)
    issued: float | None = None
    expires: float | None = None
    scope: str | None = None
    subject: str | None = None

    @classmethod
    def parse(cls: type[Kind], raw: str) -> Kind:
        """Return a token; one that is not a JWT has no claims.

        :raises TokenUnusable: empty, or not fit for a header line.
        """
        text = raw.strip()
        if not text:
            raise TokenUnusable("the token is empty", NEW_TOKEN_HINT)
        if len(text) > MAX_TOKEN_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            raise TokenUnusable("invalid token: expected a single word of printable ASCII", NEW_TOKEN_HINT)
        claims = _claims(text)
        return cls(
            text,
            _number(claims.get("iat")),
            _number(claims.get("exp")),
            claims.get("scope") if isinstance(claims.get("scope"), str) else None,
            claims.get("sub") if isinstance(claims.get("sub"), str) else None,
        )

    def digest(self) -> str:
        """Return a digest by which the token may be recognised."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired at `now` (by the control plane's clock where it is known)."""
        return self.expires is not None and now >= self.expires


class NodeToken(Token):
    """A token of the node; endpoints of a workspace do not accept it."""


class WorkspaceToken(Token):
    """A token of one workspace. SAM's agent once overwrote these with the node's and lost messages."""


def _claims(text: str) -> dict[str, Any]:
    """Read a JWT's claims. Nothing is verified: that is the control plane's part, and PyJWT would cost 10 MB."""
    try:
        return read_jwt(text)[1]
    except InvalidJSON:
        return {}


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # beyond what a clock can show it means nothing
    return float(value) if 0 <= value < 2**40 else None
