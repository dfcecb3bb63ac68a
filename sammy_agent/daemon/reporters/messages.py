# SPDX-License-Identifier: Apache-2.0
"""Reports the messages of a workspace's sessions, through the outbox to /messages.

The wire's limits are the server's: 102,400 UTF-16 units of content and 262,144 bytes of body, and a body may well be
larger than its content (a control character takes six bytes in JSON). Longer content becomes several messages, cut
between characters, never within one; beyond that it is trimmed with a mark.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.wire.limits import MAX_CONTENT_UTF16_UNITS
from sammy_agent.daemon.outbox.channels import MESSAGES, Lane, NewRow, Priority
from sammy_agent.daemon.outbox.queue import Outbox

ROLES = {
    "user": Priority.NORMAL,
    "assistant": Priority.NORMAL,
    "system": Priority.NORMAL,
    "tool": Priority.NORMAL,
    "thinking": Priority.LOW,
    "plan": Priority.LOW,
}
MOST_PARTS = 20
MAX_METADATA_BYTES = 65_536  # bytes, as a JSON string within the body


class MessageInvalid(AgentError):
    """A message that no control plane would accept: the caller has a bug."""

    code = Code.MESSAGE_INVALID


@dataclass(frozen=True)
class Message:
    """One message; `timestamp` is RFC 3339, `tool_metadata` JSON in a string."""

    id: str
    session: str
    role: str
    content: str
    timestamp: str
    tool_metadata: str | None = None
    origin: str | None = None

    @classmethod
    def from_wire(cls, document: Any) -> Message:
        """Return a message written as the wire has it. MessageInvalid names the key of the wrong type."""
        if not isinstance(document, dict):
            raise MessageInvalid("a message is not a JSON object")
        for name in ("messageId", "sessionId", "role", "content", "timestamp", "toolMetadata", "origin"):
            if not isinstance(document.get(name, ""), str):
                raise MessageInvalid(f"a message's {name} is not a string")
        return cls(
            document.get("messageId", ""),
            document.get("sessionId", ""),
            document.get("role", ""),
            document.get("content", ""),
            document.get("timestamp", ""),
            document.get("toolMetadata"),
            document.get("origin"),
        )


class MessageReporter:
    """The reporter; any thread may use it."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def send(self, workspace: str, *messages: Message) -> None:
        """Store messages; when this returns they survive a power cut. They are delivered in this order, each id once.

        :raises MessageInvalid: without an id, session, timestamp or content, or of an unknown role.
        :raises OutboxUnavailable: the disk takes nothing.
        """
        self._outbox.add(Lane(MESSAGES.name, workspace), [row for message in messages for row in rows(message)])


def rows(message: Message) -> list[NewRow]:
    """Return a message as rows that the wire accepts. MessageInvalid."""
    if message.role not in ROLES:
        raise MessageInvalid(f"a message's role is {message.role!r}; allowed is {', '.join(ROLES)}")
    if not all((message.id, message.session, message.timestamp, message.content)):
        raise MessageInvalid("a message has no id, session, timestamp or content")
    metadata = _metadata(message.tool_metadata)
    first = replace(message, content="", tool_metadata=metadata)
    room = MESSAGES.most_row_bytes - len(_body(first).encode())
    parts = split_by_limits(replace_lone_surrogates(message.content), MAX_CONTENT_UTF16_UNITS, room)
    if len(parts) > MOST_PARTS:
        left_out = sum(map(len, parts[MOST_PARTS:]))
        parts = [*parts[:MOST_PARTS], f"[{left_out} more characters were left out]"]
    made = []
    for number, part in enumerate(parts, 1):
        one = replace(first, content=part)
        if number > 1:
            one = replace(one, id=f"{message.id}~{number}", tool_metadata=None)
        made.append(NewRow(one.id, _body(one), ROLES[message.role], message.session))
    return made


def replace_lone_surrogates(text: str) -> str:
    """Return text that can be sent as UTF-8: halves of a surrogate pair are joined, a lone one is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_by_limits(text: str, units: int, room: int) -> list[str]:
    """Return `text` in pieces of at most so many UTF-16 units and bytes within JSON, as few as a greedy cut makes.

    `room` is at least 12 bytes, what JSON's longest form of one character takes.
    """
    pieces = []
    while not _fits(text, units, room):
        low, high = 1, min(len(text), units)  # the longest piece lies between
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _fits(text[:middle], units, room) else (low, middle - 1)
        pieces.append(text[:low])
        text = text[low:]
    return [*pieces, text]


def _fits(text: str, units: int, room: int) -> bool:
    if len(text) * 2 <= units and len(text) * 6 <= room:
        return True
    return len(text.encode("utf-16-le")) // 2 <= units and len(_json(text).encode()) - 2 <= room


def _metadata(text: str | None) -> str | None:
    if text is None:
        return None
    text = replace_lone_surrogates(text)
    size = len(_json(text).encode())
    return text if size <= MAX_METADATA_BYTES else _json({"truncated": True, "bytes": size})


def _body(message: Message) -> str:
    document = {
        "messageId": message.id,
        "sessionId": message.session,
        "role": message.role,
        "content": message.content,
        "timestamp": message.timestamp,
    }
    if message.tool_metadata is not None:
        document["toolMetadata"] = message.tool_metadata
    if message.origin is not None:
        document["origin"] = message.origin
    return _json(document)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
