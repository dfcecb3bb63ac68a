# SPDX-License-Identifier: Apache-2.0
"""Loss, long round trips and readers that pause kill nothing that is healthy."""

from __future__ import annotations

import pytest

from tests.network import churn_scenarios as scenarios
from tests.quiet_machine import timed

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("client", ["ours", "ours-default"])
class TestBadNetworksKillNothing:
    """A tenth of the benchmark's requests; the default profile sends nothing twice either."""

    def check(self, health: scenarios.Health, client: str, replays: int = 0) -> None:
        assert (health.failed, health.errors) == (0, ()), str(health)
        assert max(health.again, health.renewed) <= (replays if client == "ours" else 0), str(health)

    @timed
    def test_five_percent_loss_with_slow_answers(self, client: str) -> None:
        health = scenarios.healthy("loss", client, requests=100, loss=0.05, query="?wait=10")
        self.check(health, client, replays=2)

    @pytest.mark.parametrize("round_trip", [0.1, 1.5])
    @timed
    def test_long_round_trips(self, client: str, round_trip: float) -> None:
        health = scenarios.healthy("delay", client, requests=100, at_once=50, delay=round_trip)
        self.check(health, client)

    @timed
    def test_a_large_upload_whose_reader_pauses(self, client: str) -> None:
        health = scenarios.healthy("pause", client, requests=10, at_once=10, size=4 << 20, query="?pause=6")
        self.check(health, client)

    @timed
    def test_loss_while_an_acknowledged_request_waits(self, client: str) -> None:
        health = scenarios.healthy("block", client, requests=50, at_once=50, query="?wait=6", blocks=[(3.0, 1.2)])
        self.check(health, client)


def test_the_laboratory_notices_figures_that_kill_healthy_requests() -> None:
    """The same loss, with a user timeout that leaves no room for a lost probe."""
    options: dict[str, object] = {"requests": 50, "at_once": 50, "query": "?wait=6", "blocks": [(3.0, 1.2)]}
    health = scenarios.healthy("tight", "ours-tight", **options)  # type: ignore[arg-type]
    assert health.renewed + health.again > 0, str(health)
