# SPDX-License-Identifier: Apache-2.0
"""What the server's routes need of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.server.jwks import JwksCache
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.metrics.metrics_store import MetricsStore
from sammy_agent.node.provisioning import ProvisioningState


@dataclass(frozen=True)
class ServerContext:
    """Dependencies of the routes.

    :param issuer: the control plane's URL as configured here; tokens of any other issuer are rejected.
    :param clock: the control plane's clock as far as it is known, in seconds since the epoch.
    """

    node_id: str
    issuer: str
    paths: Paths
    store: EventStore
    metrics: MetricsStore
    level: Callable[[], ProvisioningState]
    inbound: InboundContacts
    keys: JwksCache
    clock: Callable[[], float] = time.time
