# SPDX-License-Identifier: Apache-2.0
"""Where sammy keeps things on a machine."""

STATE = "/run/sammy/state.json"
RUNS = "/var/lib/sammy/runs"
OVERRIDES = "/etc/default/sammy"
AGENT_CONFIG = "/etc/sammy/agent.json"
AGENT_SOCKET = "/run/sammy/agent.sock"
READY_ACKNOWLEDGED = "/var/lib/sammy/ready-acknowledged"
AGENT_TLS_MARK = "/var/lib/sammy/agent/tls-key-is-ours"
