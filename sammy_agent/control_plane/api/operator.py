# SPDX-License-Identifier: Apache-2.0
"""What the operator asks: the nodes and how they fare."""

from __future__ import annotations

import time
from typing import Any

from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.api.base_handler import ApiHandler
from sammy_agent.control_plane.storage.artifacts import Artifacts


class NodesHandler(ApiHandler):
    """GET /api/nodes and /api/nodes/{n}, for the operator."""

    def get(self, node: str | None = None) -> None:
        """Show all nodes or one."""
        self.require_operator()
        now = time.time()
        if node is None:
            return self.write_json({"nodes": [self._view(row, now) for row in self.context.store.nodes()]})
        row = self.context.store.node(node)
        return self.write_error_json(404, "Node not found") if row is None else self.write_json(self._view(row, now))

    def _view(self, row: dict[str, Any], now: float) -> dict[str, Any]:
        packages = Artifacts(self.context.store, self.context.folder).listed(row["id"])
        return node_schema.to_json(row, now, self.context.store.incidents(row["id"], 10), packages)
