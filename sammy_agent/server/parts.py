# SPDX-License-Identifier: Apache-2.0
"""What the server is given of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sammy_agent.events.store import EventStore
from sammy_agent.inbound import Inbound
from sammy_agent.metrics.store import MetricsStore
from sammy_agent.places import Places
from sammy_agent.provisioning import Provisioning
from sammy_agent.server.keys import Keys


@dataclass(frozen=True)
class Parts:
    """What the routes stand on.

    :param issuer: the control plane's address as this node has it; who else signs is nobody.
    :param clock: the control plane's clock as far as it is known, in seconds since the epoch.
    """

    node_id: str
    issuer: str
    places: Places
    store: EventStore
    metrics: MetricsStore
    level: Callable[[], Provisioning]
    inbound: Inbound
    keys: Keys
    clock: Callable[[], float] = time.time
