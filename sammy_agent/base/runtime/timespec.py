# SPDX-License-Identifier: Apache-2.0
"""Parses a time as an operator writes it: -5m, yesterday, a date, RFC 3339."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime.clock import Timestamp

AGO = re.compile(r"-?(\d{1,9})\s*(s|m|min|h|d)(?: ago)?")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
TIMES = "-5m, -2h, -1d, boot, today, yesterday, a date, YYYY-MM-DD HH:MM:SS, or RFC 3339"


class TimeInvalid(AgentError):
    """A text is not a valid time."""

    code = Code.TIME_INVALID


def parse(text: str, now: Timestamp) -> Timestamp:
    """Return the time that a text names, by both clocks as they are now. TimeInvalid."""
    if found := AGO.fullmatch(text.strip()):
        return _before(now, int(found[1]) * SECONDS[found[2]] * 1_000_000)
    if text == "boot":
        return Timestamp(now.wall - now.boot, 0)
    return _before(now, now.wall - round(_stamp(text, now) * 1e6))


def _before(now: Timestamp, microseconds: int) -> Timestamp:
    return Timestamp(max(0, now.wall - microseconds), now.boot - microseconds)


def _stamp(text: str, now: Timestamp) -> float:
    if text in ("today", "yesterday"):
        midnight = datetime.fromtimestamp(now.wall / 1e6).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - timedelta(days=text == "yesterday")).astimezone().timestamp()
    try:
        # Python 3.10 reads no Z and only fractions of 3 or 6 digits; without a zone it is this machine's
        readable = re.sub(r"\.(\d+)", lambda found: f".{found[1][:6]:<06}", re.sub("[zZ]$", "+00:00", text.strip()))
        return datetime.fromisoformat(readable).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise TimeInvalid(f"invalid time {text!r}", f"Use {TIMES}") from error
