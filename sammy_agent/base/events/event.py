# SPDX-License-Identifier: Apache-2.0
"""An event before it is stored; the store assigns its number and its id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from sammy_agent.base.events.kinds import Kind

MAX_MESSAGE_CHARS, MAX_DETAIL_CHARS = 2000, 8000


def clean(text: str) -> str:
    """Return a text that SQLite accepts: a file name's undecodable bytes are not valid UTF-8."""
    return text.encode("utf-8", "replace").decode()


class NewEvent(NamedTuple):
    """An event. Its fields are the columns of the table; `key` identifies one that may be recorded twice."""

    created_at: int  # microseconds since the epoch
    boottime_us: int  # microseconds of CLOCK_BOOTTIME
    boot_id: str
    level: str
    type: str
    message: str
    run_id: str = ""
    step: str = ""
    status: str = ""
    attempt: int | None = None
    duration_us: int | None = None
    detail: str | None = None  # JSON, an object
    key: str | None = None


def detail_text(detail: Mapping[str, Any] | None) -> str | None:
    """Return the detail as it is stored: always an object; a long one is truncated."""
    if not detail:
        return None
    text = clean(json.dumps(detail, ensure_ascii=False, default=str))
    return text if len(text) <= MAX_DETAIL_CHARS else json.dumps({"cut": text[:MAX_DETAIL_CHARS]}, ensure_ascii=False)


class RecordEvent(Protocol):
    """Callback with which a component records an event: `Recorder.record` or `discard_event`. Never waits or raises."""

    def __call__(
        self, kind: Kind, message: str, *, detail: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> None:
        """Record an event; `seconds` is the duration of what it reports."""


def discard_event(
    kind: Kind, message: str, *, detail: Mapping[str, Any] | None = None, seconds: float | None = None
) -> None:
    """Discard the event: for a component on its own, in tests."""
