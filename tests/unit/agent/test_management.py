# SPDX-License-Identifier: Apache-2.0
"""What the control plane knows of the way into its nodes: ports, words for what went wrong, whom to visit when."""

from __future__ import annotations

import errno
import ssl
import time
from typing import Any

import pytest
import requests

from sammy_agent.control_plane import node_client, node_schema
from sammy_agent.control_plane.reachability_poller import UNHEALTHY_FACTOR, ReachabilityPoller


@pytest.mark.parametrize(
    ("port", "kept"),
    [(8443, 8443), (0, None), (70000, None), (True, None), ("8443", None), (8443.5, None), (None, None)],
)
def test_a_nodes_port_is_kept_where_it_is_one(port: object, kept: int | None) -> None:
    assert node_schema.parse_heartbeat({"agentPort": port}).get("agent_port") == kept


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.ConnectTimeout("x"), "nothing answers at 192.0.2.7 port 9443; its last heartbeat is 12 s old"),
        (requests.ReadTimeout("x"), "n1 at 192.0.2.7 port 9443 took the request and did not answer for 30 s"),
        (requests.ConnectionError(ConnectionRefusedError(errno.ECONNREFUSED, "no")), "refuses connections"),
        (
            requests.ConnectionError(OSError(errno.EHOSTUNREACH, "No route to host")),
            "cannot be reached: no route to host",
        ),
        (
            requests.ConnectionError(ssl.SSLCertVerificationError("wrong name")),
            "is not n1 as this control plane knows it",
        ),
    ],
)
def test_why_a_node_cannot_be_asked(error: Exception, words: str) -> None:
    row = {"id": "n1", "ip_address": "192.0.2.7", "agent_port": 9443, "last_heartbeat_at": 88.0}
    said = node_client.unreachable(error, row, 30.0, 100.0)
    assert words in said.problem.text and said.problem.next_step


def test_running_nodes_are_visited_and_silent_ones_seldom() -> None:
    store: Any = None
    rounds = ReachabilityPoller(store, store, every=60.0)

    def row(node: str, **changed: Any) -> dict[str, Any]:
        return {"id": node, "status": "running", "ip_address": "192.0.2.7", "stale_after_s": 180,
                "last_heartbeat_at": time.time(), **changed}  # fmt: skip

    def visits(of: dict[str, Any], hours: int = 1) -> int:
        return sum(rounds._is_due(of, float(second)) for second in range(hours * 3600))

    assert 54 <= visits(row("well")) <= 67
    assert 3600 / 66 / UNHEALTHY_FACTOR <= visits(row("silent", last_heartbeat_at=time.time() - 3600)) <= 8
    assert visits(row("creating", status="creating")) == visits(row("unheard", ip_address=None)) == 0
