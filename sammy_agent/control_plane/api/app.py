# SPDX-License-Identifier: Apache-2.0
"""The control plane's application: which path is whose. The wire as SAM speaks it, but with 401 for a bad token."""

from __future__ import annotations

import logging

from tornado import web

from sammy_agent.base.wire import endpoints
from sammy_agent.base.wire.limits import JWKS_MAX_AGE_SECONDS
from sammy_agent.base.wire.statuses import AUTHENTICATION_REQUIRED
from sammy_agent.control_plane.api.artifacts import Artifact
from sammy_agent.control_plane.api.base_handler import Handler, Parts
from sammy_agent.control_plane.api.node_callbacks import Certificate, Errors, Heartbeat, Ready
from sammy_agent.control_plane.api.node_proxy import NodeProxy
from sammy_agent.control_plane.api.operator import Nodes
from sammy_agent.control_plane.api.sessions import NodeAlive, SessionActivity, Sessions
from sammy_agent.control_plane.api.workspaces import Messages, NodeBootLog, WorkspaceBootLog, Workspaces

LOG = logging.getLogger(__name__)


class Jwks(Handler):
    """GET /.well-known/jwks.json."""

    def get(self) -> None:
        """Show the public keys."""
        self.set_header("Cache-Control", f"public, max-age={JWKS_MAX_AGE_SECONDS}")
        self.write_json(self.parts.signer.jwks())

    head = get


class Unknown(Handler):
    """Any other path: the wire's answer is 401, it does not tell what exists."""

    def prepare(self) -> None:
        """Refuse."""
        self.write_error_json(401, AUTHENTICATION_REQUIRED)


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
    routes: list[tuple[str, type[Handler]]] = [
        (endpoints.HEARTBEAT, Heartbeat),
        (endpoints.READY, Ready),
        (endpoints.ERRORS, Errors),
        (endpoints.CERTIFICATE, Certificate),
        (endpoints.NODE_BOOT_LOG, NodeBootLog),
        (endpoints.ARTIFACTS, Artifact),
        (endpoints.ARTIFACT_CONTENT, Artifact),
        (endpoints.NODE, Nodes),
        (endpoints.NODES, Nodes),
        (endpoints.NODE_ACP_HEARTBEAT, NodeAlive),
        (endpoints.SESSIONS, Sessions),
        (endpoints.SESSION_ACTIVITY, SessionActivity),
        (endpoints.MESSAGES, Messages),
        (endpoints.WORKSPACE_BOOT_LOG, WorkspaceBootLog),
        (endpoints.WORKSPACE, Workspaces),
        (endpoints.WORKSPACES, Workspaces),
        (endpoints.JWKS, Jwks),
    ]
    proxied = f"{endpoints.route(endpoints.NODE)}/({'|'.join(endpoints.NODE_SERVER_ROUTES)})"
    given = {"parts": parts}
    return web.Application(
        [*((endpoints.route(path), handler, given) for path, handler in routes), (proxied, NodeProxy, given)],
        default_handler_class=Unknown,
        default_handler_args=given,
        compress_response=True,
        log_function=log_request,
    )
