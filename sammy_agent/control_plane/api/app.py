# SPDX-License-Identifier: Apache-2.0
"""The control plane's application: which path is whose. The wire as SAM speaks it, but with 401 for a bad token."""

from __future__ import annotations

import logging

from tornado import web

from cc_sammy.common.terminal import escape_control_characters
from sammy_agent.base.runtime.log_throttle import LogThrottle, also_suppressed
from sammy_agent.base.wire import endpoints
from sammy_agent.base.wire.limits import JWKS_MAX_AGE_SECONDS
from sammy_agent.base.wire.statuses import AUTHENTICATION_REQUIRED
from sammy_agent.control_plane.api.artifacts import ArtifactHandler
from sammy_agent.control_plane.api.base_handler import ApiContext, ApiHandler
from sammy_agent.control_plane.api.node_callbacks import (
    CertificateHandler,
    ErrorsHandler,
    HeartbeatHandler,
    ReadyHandler,
)
from sammy_agent.control_plane.api.node_proxy import NodeProxyHandler
from sammy_agent.control_plane.api.operator import NodesHandler
from sammy_agent.control_plane.api.sessions import NodeAcpHeartbeatHandler, SessionActivityHandler, SessionsHandler
from sammy_agent.control_plane.api.workspaces import (
    MessagesHandler,
    NodeBootLogHandler,
    WorkspaceBootLogHandler,
    WorkspacesHandler,
)

LOG = logging.getLogger(__name__)
_REFUSALS = LogThrottle(10.0)  # seconds between two lines of one address and status: a stranger may fill a disk


class JwksHandler(ApiHandler):
    """GET /.well-known/jwks.json."""

    def get(self) -> None:
        """Show the public keys."""
        self.set_header("Cache-Control", f"public, max-age={JWKS_MAX_AGE_SECONDS}")
        self.write_json(self.context.signer.jwks())

    head = get


class UnknownPathHandler(ApiHandler):
    """Any other path: the wire's answer is 401, it does not tell what exists."""

    def prepare(self) -> None:
        """Refuse."""
        self.write_error_json(401, AUTHENTICATION_REQUIRED)


def log_request(handler: web.RequestHandler) -> None:
    """Log refusals and bugs; a fleet's heartbeats would drown everything else (SAM's finding H8)."""
    status, request = handler.get_status(), handler.request
    if status < 400:
        return
    suppressed = _REFUSALS.allow(f"{request.remote_ip} {status}")
    if suppressed is not None:
        # no query string, no headers: there may be secrets
        path = escape_control_characters(request.path[:200])
        LOG.warning("%s %s from %s: %d%s", request.method, path, request.remote_ip, status, also_suppressed(suppressed))


def application(context: ApiContext) -> web.Application:
    """Return the routes."""
    routes: list[tuple[str, type[ApiHandler]]] = [
        (endpoints.HEARTBEAT, HeartbeatHandler),
        (endpoints.READY, ReadyHandler),
        (endpoints.ERRORS, ErrorsHandler),
        (endpoints.CERTIFICATE, CertificateHandler),
        (endpoints.NODE_BOOT_LOG, NodeBootLogHandler),
        (endpoints.ARTIFACTS, ArtifactHandler),
        (endpoints.ARTIFACT_CONTENT, ArtifactHandler),
        (endpoints.NODE, NodesHandler),
        (endpoints.NODES, NodesHandler),
        (endpoints.NODE_ACP_HEARTBEAT, NodeAcpHeartbeatHandler),
        (endpoints.SESSIONS, SessionsHandler),
        (endpoints.SESSION_ACTIVITY, SessionActivityHandler),
        (endpoints.MESSAGES, MessagesHandler),
        (endpoints.WORKSPACE_BOOT_LOG, WorkspaceBootLogHandler),
        (endpoints.WORKSPACE, WorkspacesHandler),
        (endpoints.WORKSPACES, WorkspacesHandler),
        (endpoints.JWKS, JwksHandler),
    ]
    proxied = f"{endpoints.route(endpoints.NODE)}/({'|'.join(endpoints.NODE_SERVER_ROUTES)})"
    given = {"context": context}
    return web.Application(
        [*((endpoints.route(path), handler, given) for path, handler in routes), (proxied, NodeProxyHandler, given)],
        default_handler_class=UnknownPathHandler,
        default_handler_args=given,
        compress_response=True,
        log_function=log_request,
    )
