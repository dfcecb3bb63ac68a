# SPDX-License-Identifier: Apache-2.0
"""What /etc/sammy/agent.json holds: agent-install writes it, sammy-agent reads it at its start."""

from __future__ import annotations

from typing import NamedTuple


class AgentConfigFile(NamedTuple):
    """The file's keys in their order; the token stays in its own file. The reader checks the values."""

    node_id: str | None
    control_plane_url: str | None
    token_file: str | None
    ca_file: str | None
    port: int
    debug_push: bool
