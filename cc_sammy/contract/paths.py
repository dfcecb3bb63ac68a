# SPDX-License-Identifier: Apache-2.0
"""Where sammy keeps things on a machine."""

import os

STATE = "/run/sammy/state.json"
RUNS = "/var/lib/sammy/runs"
OVERRIDES = "/etc/default/sammy"
AGENT_CONFIG = "/etc/sammy/agent.json"
AGENT_SOCKET = "/run/sammy/agent.sock"
READY_ACKNOWLEDGED = "/var/lib/sammy/ready-acknowledged"
AGENT_TLS_MARK = "/var/lib/sammy/agent/tls-key-is-ours"
FIREWALL_FOLDER = "/var/lib/sammy/firewall"
# The firewall's program, to which a verb is added. -I -S: it starts without looking at what else is installed.
_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "firewall", "__main__.py")
FIREWALL = ("/usr/bin/python3", "-I", "-S", _PROGRAM)
