# SPDX-License-Identifier: Apache-2.0
"""The incident's id: a ULID made from the run, so that a failure told by cc_sammy and again by the agent is one."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULID uses it


def incident_id(run_id: str, what: str) -> str:
    """Return the ULID of what happened in a run: the run's begin in milliseconds, then 80 bits of a hash.

    :param run_id: begins with its time, for example 20261124T104646-1a2b3c4d.
    :param what: "failed", or a step's name.
    """
    try:
        begun = datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
        milliseconds = max(0, int(begun.timestamp() * 1000))
    except ValueError:
        milliseconds = 0
    digest = int.from_bytes(hashlib.sha256(f"{run_id} {what}".encode()).digest()[:10], "big")
    number = (milliseconds << 80) | digest
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
