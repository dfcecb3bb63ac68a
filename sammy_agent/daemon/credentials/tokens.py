# SPDX-License-Identifier: Apache-2.0
"""A token as a value: whose it is, how long it lives, what its claims say; no file, no request."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sammy_agent.base.errors import TokenUnusable

NEW_TOKEN_HINT = "Get a new token for this node from its control plane and give it to `sammy-agent token set`"


LONGEST = 16384


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
        """Return a token; one that is no JWT simply says nothing about itself.

        :raises TokenUnusable: empty, or not fit for a header line.
        """
        text = raw.strip()
        if not text:
            raise TokenUnusable("the token is empty", NEW_TOKEN_HINT)
        if len(text) > LONGEST or not text.isascii() or not text.isprintable() or " " in text:
            raise TokenUnusable("that is no token: it must be one word of printable ASCII", NEW_TOKEN_HINT)
        claims = _claims(text)
        return cls(
            text,
            _number(claims.get("iat")),
            _number(claims.get("exp")),
            claims.get("scope") if isinstance(claims.get("scope"), str) else None,
            claims.get("sub") if isinstance(claims.get("sub"), str) else None,
        )

    def digest(self) -> str:
        """Return what may be remembered of it in the open."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def is_expired(self, now: float) -> bool:
        """Tell whether its time is over at `now` (the control plane's clock where it is known)."""
        return self.expires is not None and now >= self.expires


class NodeToken(Token):
    """A token that speaks for the node; no door of a workspace takes it."""


class WorkspaceToken(Token):
    """A token that speaks for one workspace. SAM's agent once overwrote these with the node's and lost messages."""


def _claims(text: str) -> dict[str, Any]:
    """Read a JWT's claims. Nothing is verified: that is the control plane's part, and PyJWT would cost 10 MB."""
    parts = text.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    # beyond what a clock can show it says nothing
    return float(value) if 0 <= value < 2**40 else None
