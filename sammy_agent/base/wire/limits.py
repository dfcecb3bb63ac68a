# SPDX-License-Identifier: Apache-2.0
"""The wire's bounds, in the unit in which SAM's server counts: rows, bytes of the whole body, UTF-16 units, seconds.

They are the server's: one that is exceeded is answered 400 for the whole request, so the agent splits and trims by the
same numbers before it sends (SAM's agent counted in other units and lost messages, its finding M6).
"""

from __future__ import annotations

# POST /api/workspaces/{w}/messages: MAX_MESSAGES_PER_BATCH, MAX_MESSAGES_PAYLOAD_BYTES, MESSAGE_SIZE_THRESHOLD,
# MAX_MESSAGES_PER_SESSION of SAM. Its texts say bytes of the content, but a JavaScript string counts UTF-16 units.
MAX_MESSAGES = 100
MAX_MESSAGES_BYTES = 262_144
MAX_CONTENT_UTF16_UNITS = 102_400
MAX_MESSAGES_PER_SESSION = 100_000

# POST /api/workspaces/{w}/boot-log: SAM keeps the newest 50 entries of a workspace.
MAX_KEPT_BOOT_LOG_ENTRIES = 50
# Ours: a bound of the body, and POST /api/nodes/{n}/boot-log, which SAM does not have.
MAX_BOOT_LOG_BYTES = 65_536
MAX_BOOT_LOG_ENTRIES = 50

# POST /api/nodes/{n}/errors. Longer texts of an entry are cut, not refused.
MAX_ERRORS = 10
MAX_ERRORS_BYTES = 32_768
MAX_ERROR_MESSAGE = 2048  # characters, as the following two
MAX_ERROR_SOURCE = 256
MAX_ERROR_STACK = 4096

# POST and PUT /api/nodes/{n}/diagnostic-incidents/{i}/artifacts…
MAX_ARTIFACT_BYTES = 2 * 1024 * 1024
MAX_ARTIFACT_DECLARATION_BYTES = 32 * 1024  # ours

# POST /api/projects/{p}/acp-sessions/{s}/activity
MAX_STATUS_ERROR = 2048  # characters
MAX_ACTIVITY_BYTES = 32_768  # ours

# Seconds. NODE_HEARTBEAT_STALE_SECONDS: a node is stale beyond it, unhealthy beyond twice that.
HEARTBEAT_SECONDS = 60.0
HEARTBEAT_STALE_SECONDS = 180
# ACP_SESSION_DETECTION_WINDOW_MS: without a sign of life for so long a session is interrupted.
SESSION_INTERRUPTED_SECONDS = 300.0
SESSION_REPEAT_SECONDS = 60.0  # ACTIVITY_REREPORT_INTERVAL, ACP_HEARTBEAT_INTERVAL
# CALLBACK_TOKEN_EXPIRY_MS and CALLBACK_TOKEN_REFRESH_THRESHOLD_RATIO: the share of its life after which it is renewed.
CALLBACK_TOKEN_SECONDS = 24 * 3600.0
CALLBACK_TOKEN_REFRESH_RATIO = 0.5
MANAGEMENT_TOKEN_SECONDS = 3600.0
JWKS_MAX_AGE_SECONDS = 3600
