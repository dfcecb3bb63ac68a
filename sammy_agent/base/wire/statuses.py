# SPDX-License-Identifier: Apache-2.0
"""The words of the wire: what states, roles and activities are called, and the error codes of its answers.

A word that is not in the list is answered 400 for the whole request. Plain tuples: an idle agent loads them.
"""

from __future__ import annotations

# A node's status and its health, as the control plane tells them. `/ready` makes a node running, a heartbeat does not.
NODE_CREATING, NODE_RUNNING = "creating", "running"
HEALTHY, STALE, UNHEALTHY = "healthy", "stale", "unhealthy"

MESSAGE_ROLES = ("user", "assistant", "system", "tool", "thinking", "plan")

# What a coding agent's session does; the first two are repeated while they last.
BUSY_ACTIVITIES = ("prompting", "recovering")
ACTIVITIES = (*BUSY_ACTIVITIES, "idle", "error")
INTERRUPTED = "interrupted"  # the control plane's word for a session without a sign of life

BOOT_LOG_STATUSES = ("started", "completed", "failed")
NODE_BOOT_LOG_STATUSES = (*BOOT_LOG_STATUSES, "skipped")  # ours: SAM records no skipped step

# An incident's artifact. SAM knows one kind; the id of its artifact is made from the incident's.
ARTIFACT_KIND = "safe-vm-incident-v1"
ARTIFACT_READY, ARTIFACT_FAILED, ARTIFACT_PENDING = "ready", "failed", "pending"

# `error` of an answer that refuses. SAM names no code for 405, 413 and 502: ours.
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_ERROR",
    502: "BAD_GATEWAY",
}
SESSION_FULL = "SESSION_MESSAGE_LIMIT_EXCEEDED"  # 409: final for this session
# `message` of the 401 for a path that does not exist, by which an agent knows that an addition of ours is not there
AUTHENTICATION_REQUIRED = "Authentication required"


def artifact_id(incident: str) -> str:
    """Return the id of an incident's one artifact."""
    return f"{incident}-safe"
