# SPDX-License-Identifier: Apache-2.0
"""What a workspace says to its control plane: bodies judged by the wire's rules. No I/O."""

from __future__ import annotations

from typing import Any

from sammy_agent.control_plane.nodes import BodyRefused, parse_json

ROLES = ("user", "assistant", "system", "tool", "thinking", "plan")
MOST_MESSAGES, MOST_BYTES, MOST_UNITS = 100, 262_144, 102_400


def message_entries(raw: bytes) -> list[dict[str, Any]]:
    """Return the messages of a body. BodyRefused says which rule it breaks."""
    if len(raw) > MOST_BYTES:
        raise BodyRefused(f"The body is over {MOST_BYTES} bytes")
    entries = parse_json(raw).get("messages")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_MESSAGES:
        raise BodyRefused(f"messages must be an array of 1 to {MOST_MESSAGES}")
    for entry in entries:
        if not isinstance(entry, dict):
            raise BodyRefused("messages: an entry is no object")
        _need_texts(entry, "messageId", "sessionId", "content", "timestamp")
        if entry.get("role") not in ROLES:
            raise BodyRefused(f"role must be one of {', '.join(ROLES)}")
        # SAM counts as JavaScript does
        if len(entry["content"].encode("utf-16-le", "surrogatepass")) // 2 > MOST_UNITS:
            raise BodyRefused(f"content is over {MOST_UNITS}")
    if len({entry["sessionId"] for entry in entries}) != 1:
        raise BodyRefused("all messages must be of one session")
    return entries


def _need_texts(entry: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise BodyRefused(f"{name} is required")
