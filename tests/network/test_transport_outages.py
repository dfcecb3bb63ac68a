# SPDX-License-Identifier: Apache-2.0
"""Beats through Docker's starts, late news and outages: what an outage costs is its length and no more."""

from __future__ import annotations

import math

import pytest

from tests.network import churn_scenarios as scenarios
from tests.network.churn_lab import Routed, Wired, assert_none_lost, laboratory, run, summary
from tests.network.churn_scenarios import MONITOR, REMOUNTED, TOLD, TOLD_LATE, UNTOLD
from tests.network.docker import Docker
from tests.quiet_machine import timed

pytestmark = pytest.mark.needs("root")


@pytest.mark.needs("dockerd")
@timed
def test_a_docker_that_starts_stops_and_starts_again_costs_no_beat() -> None:
    """Docker writes some forty transactions of rules, and makes a bridge; the machine's firewall drops by default."""
    kinds = [UNTOLD, MONITOR]
    with laboratory(Routed(loose=0)) as lab, Docker(lab.names["client"]) as docker:
        lab.firewall_rewritten()
        clients = [lab.client(kind.label, kind.client, 26) for kind in kinds]
        happenings = [(3.4, docker.start), (11.4, docker.stop), (16.4, docker.start)]
        changed = run(clients, happenings)
        assert "DOCKER" in lab.sh("client", "nft list ruleset")
        for client in clients:
            assert_none_lost(client.result(changed))


@timed
def test_news_that_comes_late_breaks_neither_told_nor_untold() -> None:
    """A NAT that forgets twice; Sessions told late hang, ours do not."""
    late, *ours = scenarios.changes(
        [scenarios.REMOUNTED_LATE, UNTOLD, TOLD_LATE], beats=24, what=("nat_forgets", "nat_forgets"), at=(5.97, 13.97)
    )
    for beats in ours:
        assert_none_lost(beats)
    assert late.lost > 0, str(late)


@timed
def test_sessions_told_at_once_are_the_bar() -> None:
    remounted, told = scenarios.changes([REMOUNTED, TOLD], beats=12, what=("nat_forgets",), at=(5.37,))
    for beats in (remounted, told):
        assert_none_lost(beats)


@pytest.mark.parametrize("length", [2.0, 5.0])
@timed
def test_an_outage_costs_its_length_and_no_more_than_a_beat_and_a_half(length: float) -> None:
    took, results = scenarios.outage([UNTOLD, MONITOR, TOLD], length)
    for beats in results:
        assert length < beats.longest_gap < took + 1.5 + beats.stall, str(beats)


def test_the_count_of_lost_beats_is_right() -> None:
    """The measuring itself: a wire that is cut for good loses every later tick, and says "never"."""
    with laboratory(Wired()) as lab:
        client = lab.client("cut", "remounted", 6)
        changed = run([client], [(2.5, lambda: lab.set("block", 1))])
        lab.sh("client", "sleep 4")
        client.process.kill()
        arrived = len(lab.arrived())
    assert changed
    assert arrived == 15

    beats = [[(0.0, 0.1, ""), (1.0, 1.1, ""), (2.0, 9.0, "ReadTimeout")]]
    counted = summary("x", {"beats": beats, "stall": 0.0}, (5, 1.0), 0.0, [2.0])
    assert (counted.lost, counted.sent, counted.recovery) == (3, 3, (math.inf,))
    assert counted.longest_gap == pytest.approx(2.9)
