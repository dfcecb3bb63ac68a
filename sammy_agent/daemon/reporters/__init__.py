# SPDX-License-Identifier: Apache-2.0
"""Reports to the control plane: heartbeat, ready, errors, boot log, messages, sessions. One thread and session each.

All of them report levels, not edges: what is true is sent until it is acknowledged, whatever happened before.
"""
