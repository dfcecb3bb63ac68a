# SPDX-License-Identifier: Apache-2.0
"""The condition that selects records between two times, as SQL over `created_at`, `boottime_us` and `boot_id`."""

from __future__ import annotations

from typing import Any

from sammy_agent.base.runtime.clock import Timestamp

Condition = tuple[str, tuple[Any, ...]]


def conditions(since: Timestamp | None, until: Timestamp | None, boot_id: str) -> list[Condition]:
    """Return conditions with values: records of `boot_id` are compared by the boot clock, others by the wall clock."""
    return [
        (
            f"CASE WHEN boot_id=? THEN boottime_us {sign} ? ELSE created_at {sign} ? END",
            (boot_id, bound.boot, bound.wall),
        )
        for bound, sign in ((since, ">="), (until, "<"))
        if bound is not None
    ]


def join_and(found: list[Condition]) -> tuple[str, list[Any]]:
    """Return all conditions as one, true where there are none, and their values."""
    return " AND ".join(text for text, _ in found) or "1", [value for _, values in found for value in values]
