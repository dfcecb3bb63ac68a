# SPDX-License-Identifier: Apache-2.0
"""What a workspace says to its control plane: bodies judged by the wire's rules. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sammy_agent.base.wire import limits
from sammy_agent.base.wire.statuses import BOOT_LOG_STATUSES, MESSAGE_ROLES, NODE_BOOT_LOG_STATUSES
from sammy_agent.base.wire.timestamps import iso
from sammy_agent.control_plane.node_schema import InvalidBody, parse_json


def parse_messages(raw: bytes) -> list[dict[str, Any]]:
    """Return the messages of a body. InvalidBody says which rule it breaks."""
    if len(raw) > limits.MAX_MESSAGES_BYTES:
        raise InvalidBody(f"The body is over {limits.MAX_MESSAGES_BYTES} bytes")
    entries = parse_json(raw).get("messages")
    if not isinstance(entries, list) or not 1 <= len(entries) <= limits.MAX_MESSAGES:
        raise InvalidBody(f"messages must be an array of 1 to {limits.MAX_MESSAGES}")
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidBody("messages: an entry is not an object")
        _need_texts(entry, "messageId", "sessionId", "content", "timestamp")
        if entry.get("role") not in MESSAGE_ROLES:
            raise InvalidBody(f"role must be one of {', '.join(MESSAGE_ROLES)}")
        # SAM counts as JavaScript does
        if len(entry["content"].encode("utf-16-le", "surrogatepass")) // 2 > limits.MAX_CONTENT_UTF16_UNITS:
            raise InvalidBody(f"content is over {limits.MAX_CONTENT_UTF16_UNITS}")
    if len({entry["sessionId"] for entry in entries}) != 1:
        raise InvalidBody("all messages must be of one session")
    return entries


def parse_boot_log_entry(raw: bytes) -> dict[str, Any]:
    """Return the entry of a workspace's boot log. InvalidBody says which rule it breaks."""
    entry = parse_json(_small(raw))
    _need_entry(entry, BOOT_LOG_STATUSES)
    return entry


def parse_boot_log_entries(raw: bytes) -> list[dict[str, Any]]:
    """Return the entries of a node's boot log, which SAM does not have; a repeated id has no effect.

    :raises InvalidBody: which rule it breaks.
    """
    entries = parse_json(_small(raw)).get("entries")
    if not isinstance(entries, list) or not 1 <= len(entries) <= limits.MAX_BOOT_LOG_ENTRIES:
        raise InvalidBody(f"entries must be an array of 1 to {limits.MAX_BOOT_LOG_ENTRIES}")
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidBody("entries: an entry is not an object")
        _need_texts(entry, "id")
        _need_entry(entry, NODE_BOOT_LOG_STATUSES)
    return entries


def to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workspace as its operator is shown it."""
    return {
        "id": row["id"],
        "nodeId": row["node_id"],
        "sessionId": row["session_id"],
        "messages": row["messages"],
        "createdAt": iso(row["created_at"]),
    }


def _small(raw: bytes) -> bytes:
    if len(raw) > limits.MAX_BOOT_LOG_BYTES:
        raise InvalidBody(f"The body is over {limits.MAX_BOOT_LOG_BYTES} bytes")
    return raw


def _need_entry(entry: dict[str, Any], statuses: Sequence[str]) -> None:
    _need_texts(entry, "step", "timestamp")
    if entry.get("status") not in statuses:
        raise InvalidBody(f"status must be one of {', '.join(statuses)}")
    for name in ("message", "detail"):
        if not isinstance(entry.get(name, ""), str):
            raise InvalidBody(f"{name}: wrong type")


def _need_texts(entry: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise InvalidBody(f"{name} is required")
        try:
            entry[name].encode()
        except UnicodeEncodeError as error:
            raise InvalidBody(f"{name} holds half of a surrogate pair") from error
