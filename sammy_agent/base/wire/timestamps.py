# SPDX-License-Identifier: Apache-2.0
"""Times as the wire writes them: RFC 3339 in UTC, `2026-11-24T00:00:00.000Z`, as SAM's JavaScript does."""

from __future__ import annotations

from datetime import datetime, timezone


def iso(seconds: float | None, timespec: str = "milliseconds") -> str | None:
    """Return a time of the epoch as text; None for none, and for one that no clock can show."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec=timespec).replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def seconds_of(text: str) -> float:
    """Return such a text's time in seconds since the epoch. ValueError when it is not one."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()  # Python 3.10 does not read the Z
