# SPDX-License-Identifier: Apache-2.0
"""What tokens say and the headers they travel with: callback tokens to the control plane, management tokens to a node.

RS256 JWTs. A callback token's `workspace` claim holds the node's id too when it is a node's; `scope` tells which it is,
and old ones lack it. A management token is good for one hour, at the node that it names.
"""

from __future__ import annotations

ALGORITHM = "RS256"
CALLBACK_AUDIENCE, CALLBACK_TYPE = "workspace-callback", "callback"
NODE_SCOPE, WORKSPACE_SCOPE = "node", "workspace"
MANAGEMENT_AUDIENCE = MANAGEMENT_TYPE = "node-management"

# In the answer to a heartbeat, past half of the token's life; ours: also in the answers to a workspace's messages.
REFRESHED_TOKEN = "refreshedToken"

NODE_ID_HEADER = "X-SAM-Node-Id"
CHECKSUM_HEADER = "X-Content-SHA256"
