# SPDX-License-Identifier: Apache-2.0
"""The paths of the control plane: templates that the agent fills in and the embedded control plane makes routes of.

A placeholder stands for one id. Those marked as ours SAM does not have; an unknown path is answered 401 there.
"""

from __future__ import annotations

import re

from sammy_agent.base.wire.ids import ID_PATTERN, INCIDENT_PATTERN

JWKS = "/.well-known/jwks.json"

NODES = "/api/nodes"  # of the operator, as the next one
NODE = "/api/nodes/{node}"
HEARTBEAT = "/api/nodes/{node}/heartbeat"
READY = "/api/nodes/{node}/ready"
ERRORS = "/api/nodes/{node}/errors"
CERTIFICATE = "/api/nodes/{node}/origin-ca-certificate"
NODE_BOOT_LOG = "/api/nodes/{node}/boot-log"  # ours
ARTIFACTS = "/api/nodes/{node}/diagnostic-incidents/{incident}/artifacts"
ARTIFACT_CONTENT = "/api/nodes/{node}/diagnostic-incidents/{incident}/artifacts/{artifact}/content"

WORKSPACES = "/api/workspaces"  # of the operator, as the next one
WORKSPACE = "/api/workspaces/{workspace}"
MESSAGES = "/api/workspaces/{workspace}/messages"
WORKSPACE_BOOT_LOG = "/api/workspaces/{workspace}/boot-log"

SESSIONS = "/api/projects/{project}/acp-sessions"  # of the operator; ours
SESSION_ACTIVITY = "/api/projects/{project}/acp-sessions/{session}/activity"
NODE_ACP_HEARTBEAT = "/api/projects/{project}/node-acp-heartbeat"

# What a node's own server answers to its control plane, which passes it on below NODE.
NODE_SERVER_ROUTES = ("debug-package", "events/export", "events", "metrics/export", "system-info", "logs")
NODE_SERVER_HEALTH = "/health"
NODE_SERVER_PORT = 8443  # VM_AGENT_PORT


def route(template: str) -> str:
    """Return the regular expression of a template's paths, with one group per placeholder in their order."""
    return re.sub(
        r"\\\{([a-z]+)\\\}",
        lambda placeholder: f"({INCIDENT_PATTERN if placeholder[1] == 'incident' else ID_PATTERN})",
        re.escape(template),
    )
