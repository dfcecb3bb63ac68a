# SPDX-License-Identifier: Apache-2.0
"""One event on its way into the store; the store itself gives it its number and its id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from sammy_agent.base.events.kinds import Kind

LONGEST_MESSAGE, LONGEST_DETAIL = 2000, 8000  # characters


def clean(text: str) -> str:
    """Return a text that SQLite takes: a file name's undecodable bytes are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


class NewEvent(NamedTuple):
    """An event. Its fields are the columns of the table; `key` says what it is, where it may be told twice."""

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
    """Return the detail as it is kept, an object whatever its size."""
    if not detail:
        return None
    text = clean(json.dumps(detail, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_DETAIL else json.dumps({"cut": text[:LONGEST_DETAIL]}, ensure_ascii=False)


class RecordEvent(Protocol):
    """What a component tells an event by: `Recorder.record`, or `discard_event`. It never waits and never raises."""

    def __call__(
        self, kind: Kind, message: str, *, detail: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> None:
        """Tell an event; `seconds` is how long what it tells of took."""


def discard_event(
    kind: Kind, message: str, *, detail: Mapping[str, Any] | None = None, seconds: float | None = None
) -> None:
    """Tell nobody: for a component that stands alone."""
