# SPDX-License-Identifier: Apache-2.0
"""The control plane's routes: the wire as SAM speaks it, but with 401 for a bad token.

Order matters to peers and is kept: a body that breaks the rules is 400 before anyone looks at the token.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from tornado import web

from sammy_agent.control_plane import nodes, tokens
from sammy_agent.control_plane.authority import Authority, CsrRefused
from sammy_agent.control_plane.store import Store
from sammy_agent.control_plane.tokens import Claims, Signer, TokenRefused

LOG = logging.getLogger(__name__)

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    500: "INTERNAL_ERROR",
}


@dataclass(frozen=True)
class Parts:
    """What the routes stand on."""

    store: Store
    signer: Signer
    authority: Authority
    issuer: str
    operator_token: str


class Handler(web.RequestHandler):
    """JSON in, JSON out, errors in the wire's shape."""

    def initialize(self, parts: Parts) -> None:
        """Take the parts."""
        self.parts = parts

    def set_default_headers(self) -> None:
        """Say nothing about ourselves."""
        self.clear_header("Server")

    def answer(self, document: dict[str, Any], status: int = 200) -> None:
        """Send a JSON object."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document))

    def refuse(self, status: int, message: str) -> None:
        """Send an error in the wire's shape."""
        self.answer({"error": CODES.get(status, "ERROR"), "message": message}, status)

    def write_error(self, status_code: int, **_: Any) -> None:
        """Answer what tornado refuses, and our own bugs, in the wire's shape too."""
        self.refuse(status_code, "Internal server error" if status_code >= 500 else self._reason)

    def is_json(self) -> bool:
        """Tell whether the body says it is JSON; the wire passes over one that does not."""
        return "json" in self.request.headers.get("Content-Type", "").lower()

    def bearer(self) -> str:
        """Return the token that was sent. TokenRefused when there is none."""
        header = self.request.headers.get("Authorization", "")
        if not header.startswith("Bearer"):
            raise TokenRefused(401, "Missing or invalid Authorization header")
        token = header[len("Bearer") :].strip()
        if not token:
            raise TokenRefused(401, "Empty bearer token")
        return token

    def node_claims(self, node: str, *, scope_required: bool = False) -> Claims:
        """Return the claims of a token that may speak for this node. TokenRefused otherwise."""
        claims = self.parts.signer.verify(self.bearer())
        if claims.scope == "workspace" or (scope_required and claims.scope != "node"):
            raise TokenRefused(403, "Insufficient token scope")
        if claims.subject != node:
            raise TokenRefused(401, "Callback token does not match node")
        if claims.is_boot:
            self._check_boot_token(claims, node)
        return claims

    def _check_boot_token(self, claims: Claims, node: str) -> None:
        row = self.parts.store.node(node)
        if row is None:
            return  # the route says 404 or, for /ready, lets it pass
        if row["boot_token_id"] != claims.token_id:
            raise TokenRefused(401, "Invalid callback token: a newer one was made for this node")
        used = row["boot_token_used_at"]
        if used is not None and time.time() - used > tokens.LIFE:
            raise TokenRefused(401, "Invalid callback token: it was used up; make a new one for this node")


class Heartbeat(Handler):
    """POST /api/nodes/{n}/heartbeat."""

    def post(self, node: str) -> None:
        """Take a sign of life; renew the token when half of its life is over."""
        try:
            values = nodes.heartbeat_values(nodes.parse_json(self.request.body)) if self.is_json() else {}
            claims = self.node_claims(node)
        except nodes.BodyRefused as error:
            return self.refuse(400, str(error))
        except TokenRefused as refused:
            return self.refuse(refused.status, refused.message)
        row = self.parts.store.node(node)
        if row is None:
            return self.refuse(404, "Node not found")
        now = time.time()
        if "provisioning" in values and row["provisioning"]:
            known = json.loads(row["provisioning"])
            if known.get("runId") == values["provisioning"].get("runId"):
                # steps are sent only when they changed
                values["provisioning"] = {**known, **values["provisioning"]}
        if claims.is_boot and row["boot_token_used_at"] is None:
            values["boot_token_used_at"] = now
        self.parts.store.update_node(node, {**values, "last_heartbeat_at": now, "ip_address": self.request.remote_ip})
        document = {"status": row["status"], "lastHeartbeatAt": nodes.iso(now), "healthStatus": "healthy"}
        if claims.wants_refresh(now):
            document["refreshedToken"] = self.parts.signer.callback_token(self.parts.issuer, node)
        return self.answer(document)


class Ready(Handler):
    """POST /api/nodes/{n}/ready: whoever posts it runs."""

    def post(self, node: str) -> None:
        """Make the node running and healthy; an unknown node is answered 200 all the same, as the wire does."""
        version = None
        try:
            if self.request.body and self.is_json():
                version = nodes.heartbeat_values(nodes.parse_json(self.request.body)).get("agent_version")
            self.node_claims(node)
        except nodes.BodyRefused as error:
            return self.refuse(400, str(error))
        except TokenRefused as refused:
            return self.refuse(refused.status, refused.message)
        now = time.time()
        values: dict[str, Any] = {"status": "running", "ready_at": now, "last_heartbeat_at": now}
        if version:
            values["agent_version"] = version
        self.parts.store.update_node(node, values)
        return self.answer({"status": "running", "readyAt": nodes.iso(now)})


class Errors(Handler):
    """POST /api/nodes/{n}/errors."""

    def post(self, node: str) -> None:
        """Keep incidents, each once."""
        try:
            entries = nodes.error_entries(self.request.body)
            self.node_claims(node, scope_required=True)
        except nodes.BodyRefused as error:
            return self.refuse(400, str(error))
        except TokenRefused as refused:
            return self.refuse(refused.status, refused.message)
        for entry in entries:
            if self.parts.store.add_incident(node, entry):
                level = logging.WARNING if entry["level"] == "error" else logging.INFO
                LOG.log(level, "node %s: %s", node, entry["message"])
        self.set_status(204)
        return None


class Certificate(Handler):
    """POST /api/nodes/{n}/origin-ca-certificate: a node's CSR, signed once."""

    def post(self, node: str) -> None:
        """Sign the request of the first key a node shows; the same key again gets a new certificate, another none."""
        try:
            self.node_claims(node)
            row = self.parts.store.node(node)
            if row is None:
                return self.refuse(404, "Node not found")
            text = self.request.body.decode("ascii", errors="replace")
            certificate, digest = self.parts.authority.sign_node(text, node, self.request.remote_ip or "")
        except TokenRefused as refused:
            return self.refuse(refused.status, refused.message)
        except CsrRefused as refused_request:
            return self.refuse(400, refused_request.message)
        if row["key_digest"] not in (None, digest):
            return self.refuse(409, "A certificate was signed for another key of this node; add the node anew")
        self.parts.store.update_node(node, {"key_digest": digest})
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(certificate)
        return None


class Nodes(Handler):
    """GET /api/nodes and /api/nodes/{n}, for the operator."""

    def get(self, node: str | None = None) -> None:
        """Show all nodes or one."""
        try:
            if not hmac.compare_digest(self.bearer(), self.parts.operator_token):
                raise TokenRefused(401, "Authentication required")
        except TokenRefused as refused:
            return self.refuse(401, refused.message)
        now = time.time()
        if node is None:
            return self.answer({"nodes": [self._view(row, now) for row in self.parts.store.nodes()]})
        row = self.parts.store.node(node)
        return self.refuse(404, "Node not found") if row is None else self.answer(self._view(row, now))

    def _view(self, row: dict[str, Any], now: float) -> dict[str, Any]:
        return nodes.view(row, now, self.parts.store.incidents(row["id"], 10))


class Jwks(Handler):
    """GET /.well-known/jwks.json."""

    def get(self) -> None:
        """Show the public keys."""
        self.set_header("Cache-Control", "public, max-age=3600")
        self.answer(self.parts.signer.jwks())

    head = get


class Unknown(Handler):
    """Any other path: the wire's answer is 401, it does not tell what exists."""

    def prepare(self) -> None:
        """Refuse."""
        self.refuse(401, "Authentication required")


def log_request(handler: web.RequestHandler) -> None:
    """Log refusals and bugs; a fleet's heartbeats would drown everything else (SAM's finding H8)."""
    status = handler.get_status()
    if status >= 400:
        # no query string, no headers: there may be secrets
        LOG.warning(
            "%s %s from %s: %d", handler.request.method, handler.request.path, handler.request.remote_ip, status
        )


def application(parts: Parts) -> web.Application:
    """Return the routes."""
    node = r"/api/nodes/([A-Za-z0-9][A-Za-z0-9._-]{0,127})"
    routes: list[Any] = [
        (node + "/heartbeat", Heartbeat),
        (node + "/ready", Ready),
        (node + "/errors", Errors),
        (node + "/origin-ca-certificate", Certificate),
        (node, Nodes),
        (r"/api/nodes", Nodes),
        (r"/\.well-known/jwks\.json", Jwks),
    ]
    given = {"parts": parts}
    return web.Application(
        [(path, handler, given) for path, handler in routes],
        default_handler_class=Unknown,
        default_handler_args=given,
        compress_response=True,
        log_function=log_request,
    )
