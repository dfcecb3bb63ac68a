# SPDX-License-Identifier: Apache-2.0
"""What the server is given of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.server.jwks import Keys
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.node.provisioning import Provisioning


@dataclass(frozen=True)
class Parts:
    """What the routes stand on.

    :param issuer: the control plane's address as this node has it; who else signs is nobody.
    :param clock: the control plane's clock as far as it is known, in seconds since the epoch.
    """

    node_id: str
    issuer: str
    paths: Paths
    store: EventStore
    metrics: MetricsStore
    level: Callable[[], Provisioning]
    inbound: InboundContacts
    keys: Keys
    clock: Callable[[], float] = time.time
