# SPDX-License-Identifier: Apache-2.0
"""What the outbox is about: rows, the lanes that they wait in, and what the wire allows on each channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from sammy_agent.base.wire import endpoints, limits


class Priority(IntEnum):
    """What a full outbox drops first: the oldest row of the lowest priority."""

    LOW = 0  # an agent's thinking and plans
    PROGRESS = 1  # steps that began or went well
    NORMAL = 2  # what user, assistant and tools said
    HIGH = 3  # what went wrong

    @property
    def counter(self) -> str:
        """The name by which dropped rows are counted, on disk and in the status."""
        return ("chatter", "progress", "speech", "failure")[self]


class Scope(IntEnum):
    """Whose token gives access to a channel."""

    NODE = 0
    WORKSPACE = 1


@dataclass(frozen=True)
class Channel:
    """One kind of report: its endpoint and the server's limits in its own units (rows, bytes of the body)."""

    name: str
    path: str
    scope: Scope
    key: str  # the array of the body that the rows go into; empty when the row is the body
    most_rows: int
    most_bytes: int
    numbered: bool = False  # each row carries its `sequence`
    optional: bool = False  # SAM does not have the endpoint: its 401 for unknown paths is not a failure

    @property
    def most_row_bytes(self) -> int:
        """Return what one row may take, so that it fits alone."""
        return self.most_bytes - len(self.frame()) - self.row_overhead - 1

    @property
    def row_overhead(self) -> int:
        """Return what a row grows by when it is sent."""
        return SEQUENCE_BYTES if self.numbered else 0

    def frame(self) -> bytes:
        """Return the body without rows."""
        return f'{{"{self.key}":[]}}'.encode() if self.key else b""

    def encode(self, rows: Sequence[QueuedRow]) -> bytes:
        """Return the body of a request with these rows."""
        texts = [f'{row.body[:-1]},"sequence":{row.seq}}}' if self.numbered else row.body for row in rows]
        return (f'{{"{self.key}":[{",".join(texts)}]}}' if self.key else texts[0]).encode()


# `,"sequence":` and 19 digits
SEQUENCE_BYTES = 32
MESSAGES = Channel(
    "messages", endpoints.MESSAGES, Scope.WORKSPACE, "messages", limits.MAX_MESSAGES, limits.MAX_MESSAGES_BYTES,
    numbered=True,
)  # fmt: skip
NODE_BOOT_LOG = Channel(
    "boot-log", endpoints.NODE_BOOT_LOG, Scope.NODE, "entries", limits.MAX_BOOT_LOG_ENTRIES, limits.MAX_BOOT_LOG_BYTES,
    optional=True,
)  # fmt: skip
WORKSPACE_BOOT_LOG = Channel(
    "workspace-boot-log", endpoints.WORKSPACE_BOOT_LOG, Scope.WORKSPACE, "", 1, limits.MAX_BOOT_LOG_BYTES
)
ERRORS = Channel("errors", endpoints.ERRORS, Scope.NODE, "errors", limits.MAX_ERRORS, limits.MAX_ERRORS_BYTES)
CHANNELS = {channel.name: channel for channel in (MESSAGES, NODE_BOOT_LOG, WORKSPACE_BOOT_LOG, ERRORS)}


class Lane(NamedTuple):
    """One first-in-first-out queue: a channel, and the workspace or node that its rows come from."""

    channel: str
    owner: str


class NewRow(NamedTuple):
    """A row on its way in: its id makes it the same row when it comes again; `body` is a JSON object."""

    id: str
    body: str
    priority: Priority
    group: str = ""  # rows of two groups never share a request: the wire refuses mixed sessions


class QueuedRow(NamedTuple):
    """A row in the queue; `size` in bytes as it is sent."""

    seq: int
    id: str
    body: str
    size: int
    group: str


def batch(rows: Iterable[QueuedRow], channel: Channel, limit: int) -> list[QueuedRow]:
    """Return the longest head of `rows` that may share a request; one row always goes."""
    taken: list[QueuedRow] = []
    room = channel.most_bytes - len(channel.frame())
    for row in rows:
        room -= row.size + 1
        if taken and (room < 0 or len(taken) >= limit or row.group != taken[0].group):
            break
        taken.append(row)
        if len(taken) >= limit:
            break
    return taken
