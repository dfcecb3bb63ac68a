# SPDX-License-Identifier: Apache-2.0
"""What every route stands on: JSON in SAM's shape, who may ask, and files sent to clients that may stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from tornado import iostream, web

from sammy_agent.base.errors import AgentError
from sammy_agent.base.web import streaming
from sammy_agent.daemon.server.auth import Gate, Refused
from sammy_agent.daemon.server.connection_limit import Connections
from sammy_agent.daemon.server.context import Parts

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


class Handler(web.RequestHandler):
    """One answer."""

    def initialize(self, parts: Parts, gate: Gate, connections: Connections[iostream.IOStream]) -> None:
        """Take the parts."""
        self.parts, self.gate, self._connections = parts, gate, connections

    def set_default_headers(self) -> None:
        """Say nothing about ourselves; nobody keeps an answer."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")

    def answer(self, document: dict[str, Any], status: int = 200) -> None:
        """Send a JSON object."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document))

    def refuse(self, status: int, words: str, retry_after: int | None = None) -> None:
        """Send an error in SAM's shape."""
        if retry_after is not None:
            self.set_header("Retry-After", str(retry_after))
        self.answer({"error": words}, status)

    def write_error(self, status_code: int, **how: Any) -> None:
        """Answer what tornado refuses, and our own bugs, in the same shape."""
        error = how.get("exc_info", (None, None))[1]
        if isinstance(error, AgentError):
            self.refuse(503, str(error))
        else:
            self.refuse(status_code, "a bug; see journalctl -u sammy-agent" if status_code >= 500 else self._reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what has words without a traceback."""
        if isinstance(value, AgentError):
            LOG.error("%s %s: %s", self.request.method, self.request.path, value)
        else:
            super().log_exception(typ, value, tb)

    async def let_in(self) -> bool:
        """Tell whether the request is the control plane's own; else it has been answered."""
        try:
            await self.gate.check(self.request.headers, "token" in self.request.query_arguments)
        except Refused as refused:
            self._tell(refused.problem.text)
            self.refuse(refused.status, refused.problem.text, refused.retry_after)
            return False
        self._connections.proved(self.stream)
        self.parts.inbound.record(self.peer)
        return True

    def _tell(self, words: str) -> None:
        """Log a refusal, sparingly, and never the query: there may be a token in it."""
        untold = self.gate.sparing.untold()
        if untold is not None:
            more = f" (and {untold} more before)" if untold else ""
            LOG.warning("%s %s from %s: %s%s", self.request.method, self.request.path[:200], self.peer, words, more)

    @property
    def peer(self) -> str:
        """The address that the request came from."""
        return str(self.request.remote_ip)

    @property
    def stream(self) -> iostream.IOStream:
        """The connection."""
        stream: iostream.IOStream = self.request.connection.stream  # type: ignore[union-attr]  # HTTP/1's has one
        return stream

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call what blocks, a disk or a program, without holding other requests."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    async def send_file(self, file: BinaryIO, name: str, kind: str) -> None:
        """Send a whole file.

        :param name: what the receiver may call it.
        :param kind: its media type.
        """
        size, digest = await self.in_thread(_measure, file)
        self.set_header("Content-Type", kind)
        self.set_header("Content-Length", str(size))
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.set_header("X-Content-SHA256", digest)
        trouble = await streaming.send(self, lambda: self.in_thread(file.read, streaming.CHUNK))
        if trouble:
            LOG.warning("%s for %s: %s", self.request.path, self.peer, trouble)


class Managed(Handler):
    """Of the control plane alone; `get` runs only for its own requests."""

    async def prepare(self) -> None:
        """Refuse everybody else."""
        await self.let_in()


class Unknown(Handler):
    """Any other path."""

    def prepare(self) -> None:
        """Refuse."""
        self.refuse(404, "there is no such route")


def _measure(file: BinaryIO) -> tuple[int, str]:
    """Return size in bytes and SHA-256, and stand at the beginning again."""
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while data := file.read(1024 * 1024):
        digest.update(data)
        size += len(data)
    file.seek(0)
    return size, digest.hexdigest()


@contextlib.contextmanager
def workshop(parts: Parts) -> Iterator[str]:
    """Yield a private folder that is gone with the block, on the disk of our own state: /tmp may be memory.

    :raises AgentError: it cannot be made.
    """
    import tempfile

    home = parts.paths.outgoing
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=home)
    except OSError as error:
        raise AgentError(f"{home} cannot be written: {error.strerror}", "Make room: df -h /var") from error
    with made as folder:
        yield folder
