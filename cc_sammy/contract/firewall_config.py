# SPDX-License-Identifier: Apache-2.0
"""The section `firewall` of the configuration; apart, so that the firewall's program loads none of the others."""

# No `from __future__ import annotations`: config.py builds the sections by their annotations, and takes them as types.
from typing import Literal, NamedTuple


class FirewallConfig(NamedTuple):
    """Who may reach the agent's port, and tcp 22."""

    enabled: bool
    backend: Literal["nftables", "iptables"]
    allow: Literal["cloudflare", "any"] | tuple[str, ...]
    ssh: Literal["drop", "drop-always", "open", "ranges"] | tuple[str, ...]
    published_ports: Literal["untouched", "allowed-only"]
    input_policy: Literal["keep", "accept"]
    ranges_url: str | None
    required: bool
