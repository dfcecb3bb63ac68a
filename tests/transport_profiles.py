# SPDX-License-Identifier: Apache-2.0
"""The transport set for a heartbeat each second, so that tests and benches see in seconds what takes a node minutes."""

from __future__ import annotations

import dataclasses
from typing import Any

from sammy_agent.transport import SocketProfile, TransportSettings

# 0.5 s is two or three retransmissions on a LAN, so one heartbeat in some thousands is sent twice when 5 % of the
# packets are lost each way.
FAST = SocketProfile(user_timeout=6.0, keep_idle=1, keep_interval=1, acknowledge=0.5)


def fast(**changes: Any) -> TransportSettings:
    """Return the settings for an interval of 1 s, with these fields of TransportSettings changed."""
    return dataclasses.replace(TransportSettings(retry_interval_seconds=0.2, prompt=FAST), **changes)
