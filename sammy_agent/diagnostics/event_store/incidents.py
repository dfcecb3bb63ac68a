# SPDX-License-Identifier: Apache-2.0
"""An event as the error report that goes to the control plane (POST /errors)."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from cc_sammy.contract.incident_id import incident_id
from sammy_agent.base.events.event import NewEvent


def incident_from_event(event: NewEvent) -> dict[str, Any]:
    """Return the entry; its id is made from the event, so that a repeated report counts once."""
    at = datetime.fromtimestamp(event.created_at / 1e6, timezone.utc)
    return {
        "incidentId": incident_id(f"{at:%Y%m%dT%H%M%S}-{event.boot_id}-{event.created_at}", event.type),
        "level": "error",
        "message": event.message,
        "source": "agent",
        "timestamp": at.isoformat(timespec="milliseconds"),
        "context": {"event": event.type, "bootId": event.boot_id, **json.loads(event.detail or "{}")},
    }
