# SPDX-License-Identifier: Apache-2.0
"""Requests of the operator that are passed on to a node: debug package, events, logs, metrics, system information."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import requests

from sammy_agent.base.web import streaming
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.node_client import PASSED_ON_HEADERS, NodeRefused, Unreachable

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


class NodeProxyHandler(ApiHandler):
    """GET /api/nodes/{n}/debug-package and the others of NODE_SERVER_ROUTES: the node's own answer, streamed."""

    async def get(self, node: str, route: str) -> None:
        """Pass the node's answer on."""
        self.require_operator()
        row = self.context.store.node(node)
        if row is None:
            return self.write_error_json(404, "Node not found")
        try:
            answer = await self._in_thread(self.context.node_client.get, row, f"/{route}", self.request.query)
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
        for name in PASSED_ON_HEADERS:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        parts = answer.iter_content(streaming.CHUNK)
        try:
            trouble = await streaming.send(self, lambda: self._in_thread(next, parts, b""))
        except (requests.RequestException, OSError) as error:
            LOG.warning("%s: the node closed the connection: %s", self.request.path, error)
            streaming.break_off(self)
            return
        if trouble:
            LOG.warning("%s for %s: %s", self.request.path, self.request.remote_ip, trouble)

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
