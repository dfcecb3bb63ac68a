# SPDX-License-Identifier: Apache-2.0
"""Verbs of the agent that `sammy` has too, where one looks first: names and help texts, the same in both commands.

Their options are the agent's alone (sammy_agent/cli/arguments.py): `sammy VERB …` hands its words over untouched.
"""

from __future__ import annotations

AGENT_COMMANDS = {
    "token": "give this node, or a workspace, another token",
    "events": "what happened on this node: boot steps, contact, tokens, firewall, the agent itself",
    "metrics": "how this machine fared: CPU, memory, disks, network, pressure, once a minute",
    "logs": "what this node's logs say, as one: journal, cloud-init, containers",
    "outbox": "what waits for the control plane, and what it refused",
    "debug-package": "gather what tells why this node is as it is, without its secrets",
}
