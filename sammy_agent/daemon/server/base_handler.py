# SPDX-License-Identifier: Apache-2.0
"""Base of the node's routes: JSON in SAM's shape, authentication, and files sent to clients that may stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from tornado import iostream

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.log_throttle import also_suppressed
from sammy_agent.base.web import streaming
from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.base.web.json_handler import JsonHandler, Refusal
from sammy_agent.base.wire.claims import CHECKSUM_HEADER
from sammy_agent.daemon.server.auth import Authenticator, Unauthorized
from sammy_agent.daemon.server.context import ServerContext

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


class AgentHandler(JsonHandler):
    """One answer of the node, in SAM's shape, never cached."""

    bug_message = "a bug; see journalctl -u sammy-agent"

    def initialize(
        self, context: ServerContext, authenticator: Authenticator, connections: ConnectionLimiter[iostream.IOStream]
    ) -> None:
        """Take what the routes stand on."""
        self.context, self.authenticator, self._connections = context, authenticator, connections

    def set_default_headers(self) -> None:
        """Name no software, and forbid caching."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """An AgentError has words of its own: the agent cannot do it now."""
        return Refusal(503, str(error)) if isinstance(error, AgentError) else None

    def log_refusal(self, refusal: Refusal) -> None:
        """Log it without a traceback."""
        LOG.error("%s %s: %s", self.request.method, self.request.path, refusal.message)

    async def authenticate(self) -> bool:
        """Tell whether the request is the control plane's own; else it has been answered."""
        try:
            await self.authenticator.authenticate(self.request.headers, "token" in self.request.query_arguments)
        except Unauthorized as refused:
            self._log_unauthorized(refused.problem.text)
            self.write_error_json(refused.status, refused.problem.text, refused.retry_after)
            return False
        self._connections.authenticated(self.stream)
        self.context.inbound.record(self.peer)
        return True

    def _log_unauthorized(self, message: str) -> None:
        """Log it, throttled, and never the query: there may be a token in it."""
        suppressed = self.authenticator.log_throttle.allow()
        if suppressed is not None:
            path = self.request.path[:200]
            more = also_suppressed(suppressed)
            LOG.warning("%s %s from %s: %s%s", self.request.method, path, self.peer, message, more)

    @property
    def peer(self) -> str:
        """The address that the request came from."""
        return str(self.request.remote_ip)

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
        self.set_header(CHECKSUM_HEADER, digest)
        trouble = await streaming.send(self, lambda: self.in_thread(file.read, streaming.CHUNK))
        if trouble:
            LOG.warning("%s for %s: %s", self.request.path, self.peer, trouble)


class AuthenticatedHandler(AgentHandler):
    """For the control plane alone; `get` runs only for its own requests."""

    async def prepare(self) -> None:
        """Refuse everybody else."""
        await self.authenticate()


class UnknownRoute(AgentHandler):
    """Any other path."""

    def prepare(self) -> None:
        """Refuse."""
        self.write_error_json(404, "there is no such route")


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
def private_tempdir(context: ServerContext) -> Iterator[str]:
    """Yield a private folder that is gone with the block, on the disk of our own state: /tmp may be memory.

    :raises AgentError: it cannot be made.
    """
    import tempfile

    home = context.paths.outgoing
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=home)
    except OSError as error:
        raise AgentError(f"{home} cannot be written: {error.strerror}", "Make room: df -h /var") from error
    with made as folder:
        yield folder
