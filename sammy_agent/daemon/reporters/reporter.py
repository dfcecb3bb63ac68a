# SPDX-License-Identifier: Apache-2.0
"""What a reporter is: a task that says itself what wakes it and where it stands in the status.

So a new one is a class, and a line in the table of `services`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

from sammy_agent.base.runtime.worker import Worker


class Trigger(Enum):
    """News that wakes reporters; a new token wakes them all."""

    CONNECTED = "the first heartbeat is answered, or one after an outage: no reporter waits for its backoff's end"
    PROVISIONING = "the state of this boot's run changed"
    STORED = "the runs' records are in the event store"
    INCIDENT = "the agent recorded an event that is an incident"


class Reporter(Worker):
    """A task that reports something to the control plane.

    :cvar status_key: where its snapshot stands in the socket's status; empty for one that has none.
    :cvar triggers: what wakes it.
    """

    status_key: ClassVar[str] = ""
    triggers: ClassVar[tuple[Trigger, ...]] = ()

    def snapshot(self) -> Any:
        """Return its part of the socket's status."""
        return None
