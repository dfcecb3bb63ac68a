# SPDX-License-Identifier: Apache-2.0
"""The agent's way to the control plane: one transport for all components, and who tells it of network changes.

    transport = ControlPlaneTransport(TransportSettings(ca_file="/etc/sammy/ca.pem"))
    monitor = NetworkMonitor(transport.remount)
    monitor.start()                                  # before the first connection
    session = transport.session("heartbeat")         # the only way to a requests.Session
    session.post(url, json=beat, headers={IDEMPOTENCY_HEADER: key})

See docs/transport.md.
"""

from __future__ import annotations

from sammy_agent.transport.control_plane_transport import ControlPlaneTransport, Remount
from sammy_agent.transport.errors import TotalTimeout, TransportClosed, TransportError, certificate_problem, describe
from sammy_agent.transport.network_monitor import NetworkMonitor
from sammy_agent.transport.request_context import IDEMPOTENCY_HEADER
from sammy_agent.transport.settings import SocketProfile, TransportSettings

__all__ = [
    "IDEMPOTENCY_HEADER",
    "ControlPlaneTransport",
    "NetworkMonitor",
    "Remount",
    "SocketProfile",
    "TotalTimeout",
    "TransportClosed",
    "TransportError",
    "TransportSettings",
    "certificate_problem",
    "describe",
]
