# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from cc_sammy.cli import agent_status

SERVICES = {
    "ready": {
        "code": "service-not-started",
        "text": "ready cannot be started: Too many open files",
        "next_step": "Check the limits",
    }
}


@pytest.mark.parametrize(
    "answer",
    [
        {"control_plane_url": None},
        {"config_problem": {"text": "it is damaged", "next_step": ""}},
        {"control_plane_url": "https://x", "node_id": "n1", "contact": {"state": "ok"}},
    ],
    ids=["no control plane", "wrong configuration", "in contact"],
)
def test_a_service_that_is_not_started_is_named_with_why_and_what_to_do(answer: dict[str, Any]) -> None:
    row = ("not started", "ready cannot be started: Too many open files. Check the limits")
    assert agent_status.rows({**answer, "services": SERVICES})[-1] == row
    assert row not in agent_status.rows({**answer, "services": {}})
    assert row not in agent_status.rows(answer), "an agent of an earlier version names none"
