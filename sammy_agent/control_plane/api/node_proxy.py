# SPDX-License-Identifier: Apache-2.0
"""What the operator asks a node through the control plane: its debug package, events, logs, system information."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import requests

from sammy_agent.base.web import streaming
from sammy_agent.control_plane.api.base_handler import Handler
from sammy_agent.control_plane.node_client import HEADERS, NodeRefused, Unreachable

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


class NodeProxy(Handler):
    """GET /api/nodes/{n}/debug-package and its like: the node's own answer, as it comes."""

    async def get(self, node: str, route: str) -> None:
        """Ask the node."""
        self.operator_only()
        row = self.parts.store.node(node)
        if row is None:
            return self.write_error_json(404, "Node not found")
        try:
            answer = await self._in_thread(self.parts.management.ask, row, f"/{route}", self.request.query)
        except Unreachable as error:
            return self.write_error_json(error.status, str(error))
        except NodeRefused as error:
            if error.retry_after is not None:
                self.set_header("Retry-After", error.retry_after)
            return self.write_error_json(error.status, str(error))
        try:
            await self._pass_on(answer)
        finally:
            answer.close()
        return None

    async def _pass_on(self, answer: requests.Response) -> None:
        for name in HEADERS:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        parts = answer.iter_content(streaming.CHUNK)
        try:
            trouble = await streaming.send(self, lambda: self._in_thread(next, parts, b""))
        except (requests.RequestException, OSError) as error:
            LOG.warning("%s: the node broke off: %s", self.request.path, error)
            streaming.break_off(self)
            return
        if trouble:
            LOG.warning("%s for %s: %s", self.request.path, self.request.remote_ip, trouble)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
