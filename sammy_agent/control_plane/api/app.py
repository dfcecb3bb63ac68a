# SPDX-License-Identifier: Apache-2.0
"""The control plane's application: which path is whose. The wire as SAM speaks it, but with 401 for a bad token."""

from __future__ import annotations

import logging
from typing import Any

from tornado import web

from sammy_agent.control_plane.api.artifacts import INCIDENT, Artifact
from sammy_agent.control_plane.api.base_handler import Handler, Parts
from sammy_agent.control_plane.api.node_callbacks import Certificate, Errors, Heartbeat, Ready
from sammy_agent.control_plane.api.node_proxy import ROUTES, NodeProxy
from sammy_agent.control_plane.api.operator import Nodes
from sammy_agent.control_plane.api.sessions import NodeAlive, SessionActivity, Sessions
from sammy_agent.control_plane.api.workspaces import Messages, NodeBootLog, WorkspaceBootLog, Workspaces

LOG = logging.getLogger(__name__)


class Jwks(Handler):
    """GET /.well-known/jwks.json."""

    def get(self) -> None:
        """Show the public keys."""
        self.set_header("Cache-Control", "public, max-age=3600")
        self.write_json(self.parts.signer.jwks())

    head = get


class Unknown(Handler):
    """Any other path: the wire's answer is 401, it does not tell what exists."""

    def prepare(self) -> None:
        """Refuse."""
        self.write_error_json(401, "Authentication required")


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
    kinds = ("nodes", "workspaces", "projects")
    node, workspace, project = (rf"/api/{kind}/([A-Za-z0-9][A-Za-z0-9._-]{{0,127}})" for kind in kinds)
    routes: list[Any] = [
        (node + "/heartbeat", Heartbeat),
        (node + "/ready", Ready),
        (node + "/errors", Errors),
        (node + "/origin-ca-certificate", Certificate),
        (node + "/boot-log", NodeBootLog),
        (node + INCIDENT, Artifact),
        (rf"{node}/({'|'.join(ROUTES)})", NodeProxy),
        (node, Nodes),
        (r"/api/nodes", Nodes),
        (project + "/node-acp-heartbeat", NodeAlive),
        (project + "/acp-sessions", Sessions),
        (project + r"/acp-sessions/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/activity", SessionActivity),
        (workspace + "/messages", Messages),
        (workspace + "/boot-log", WorkspaceBootLog),
        (workspace, Workspaces),
        (r"/api/workspaces", Workspaces),
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
