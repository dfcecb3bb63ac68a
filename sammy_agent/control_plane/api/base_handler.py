# SPDX-License-Identifier: Apache-2.0
"""The base of every route: JSON in, JSON out, errors in the wire's shape, tokens of one node or workspace.

What a route refuses it raises, as InvalidBody or TokenRefused. Order matters to peers and is kept by the routes: a body
that breaks the rules is 400 before anyone looks at the token.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from typing import Any

from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.base.web.guarded_server import Limiter
from sammy_agent.base.web.json_handler import JsonHandler, Refusal
from sammy_agent.base.wire.claims import NODE_SCOPE, WORKSPACE_SCOPE
from sammy_agent.base.wire.limits import CALLBACK_TOKEN_SECONDS
from sammy_agent.base.wire.statuses import AUTHENTICATION_REQUIRED, ERROR_CODES
from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.node_client import NodeClient
from sammy_agent.control_plane.node_schema import InvalidBody
from sammy_agent.control_plane.storage.database import Store
from sammy_agent.control_plane.token_signer import Claims, TokenRefused, TokenSigner


@dataclass(frozen=True)
class ApiContext:
    """What the handlers need."""

    store: Store
    signer: TokenSigner
    authority: CertificateAuthority
    issuer: str
    operator_token: str
    node_client: NodeClient
    folder: str  # the state directory
    connections: Limiter = field(default_factory=ConnectionLimiter)


class ApiHandler(JsonHandler):
    """JSON in, JSON out, errors in the wire's shape."""

    def initialize(self, context: ApiContext) -> None:
        """Take what the handler needs."""
        self.context = context

    def error_document(self, status: int, message: str) -> dict[str, Any]:
        """Return an error in the wire's shape."""
        return {"error": ERROR_CODES.get(status, "ERROR"), "message": message}

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """A route refuses by raising; the log of requests shows it."""
        if isinstance(error, TokenRefused):
            return Refusal(error.status, error.problem.text)
        return Refusal(400, error.problem.text) if isinstance(error, InvalidBody) else None

    def is_json(self) -> bool:
        """Tell whether the body says it is JSON; the wire passes over one that does not."""
        return "json" in self.request.headers.get("Content-Type", "").lower()

    def bearer(self) -> str:
        """Return the token that was sent. TokenRefused when there is none."""
        header: str = self.request.headers.get("Authorization", "")
        if not header.startswith("Bearer"):
            raise TokenRefused(401, "Missing or invalid Authorization header")
        token = header[len("Bearer") :].strip()
        if not token:
            raise TokenRefused(401, "Empty bearer token")
        return token

    def node_claims(self, node: str, *, scope_required: bool = False) -> Claims:
        """Return the claims of a token that may speak for this node. TokenRefused otherwise."""
        claims = self.context.signer.verify(self.bearer())
        if claims.scope == WORKSPACE_SCOPE or (scope_required and claims.scope != NODE_SCOPE):
            raise TokenRefused(403, "Insufficient token scope")
        if claims.subject != node:
            raise TokenRefused(401, "Callback token does not match node")
        if claims.is_boot:
            self._check_boot_token(claims, node)
        self.context.connections.authenticated(self.stream)
        return claims

    def _check_boot_token(self, claims: Claims, node: str) -> None:
        row = self.context.store.node(node)
        if row is None:
            return  # the route says 404 or, for /ready, lets it pass
        if row["boot_token_id"] != claims.token_id:
            raise TokenRefused(401, "Invalid callback token: a newer one was made for this node")
        used = row["boot_token_used_at"]
        if used is not None and time.time() - used > CALLBACK_TOKEN_SECONDS:
            raise TokenRefused(401, "Invalid callback token: it was used up; make a new one for this node")

    def require_operator(self) -> None:
        """Accept the operator's token alone. TokenRefused otherwise."""
        # as bytes: of texts it takes ASCII alone, and a stranger's need not be
        if not hmac.compare_digest(self.bearer().encode(), self.context.operator_token.encode()):
            raise TokenRefused(401, AUTHENTICATION_REQUIRED)
        self.context.connections.authenticated(self.stream)
