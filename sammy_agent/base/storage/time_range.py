# SPDX-License-Identifier: Apache-2.0
"""Which records lie between two times, as SQL over `created_at`, `boottime_us` and `boot_id`."""

from __future__ import annotations

from typing import Any

from sammy_agent.base.runtime.clock import Timestamp

Term = tuple[str, tuple[Any, ...]]


def terms(since: Timestamp | None, until: Timestamp | None, boot_id: str) -> list[Term]:
    """Return conditions with values: records of `boot_id` are judged by the boot clock, others by the wall clock."""
    return [
        (
            f"CASE WHEN boot_id=? THEN boottime_us {sign} ? ELSE created_at {sign} ? END",
            (boot_id, bound.boot, bound.wall),
        )
        for bound, sign in ((since, ">="), (until, "<"))
        if bound is not None
    ]


def joined(found: list[Term]) -> tuple[str, list[Any]]:
    """Return the terms as one condition, true where there are none, and their values."""
    return " AND ".join(text for text, _ in found) or "1", [value for _, values in found for value in values]
