# SPDX-License-Identifier: Apache-2.0
"""Beats through changing networks: none lost, no gap of two intervals.

Shorter than tests/bench/churn, which runs the full figures. Times include how late the machine woke the client.
"""

from __future__ import annotations

import pytest

from tests.network import churn_scenarios as scenarios
from tests.network.churn_lab import assert_none_lost
from tests.network.churn_scenarios import OURS, PLAIN
from tests.quiet_machine import timed

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("loose", [0, 1], ids=["loose=0", "kernel default"])
@timed
def test_no_change_costs_a_beat_told_or_not(loose: int) -> None:
    plain, *ours = scenarios.changes([PLAIN, *OURS], loose=loose, beats=44)
    for beats in ours:
        assert_none_lost(beats)
    # The laboratory does harm: the same changes cost plain Sessions many beats.
    assert plain.lost > 20, str(plain)
