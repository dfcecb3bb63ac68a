# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sammy_agent.base.runtime.backoff import Backoff, exponential, full_jitter, jittered


def test_delays_double_to_their_limit_and_never_agree() -> None:
    backoff = Backoff(1.0, 8.0)
    delays = [backoff.next_delay() for _ in range(6)]
    for delay, middle in zip(delays, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * middle <= delay <= 1.25 * middle
    assert len(set(delays)) == 6
    backoff.reset()
    assert backoff.next_delay() <= 1.25


@pytest.mark.parametrize(("failures", "limit"), [(0, 0.5), (1, 1.0), (3, 4.0), (7, 60.0), (10_000, 60.0)])
def test_a_limit_is_the_first_delay_doubled_per_failure(failures: int, limit: float) -> None:
    assert exponential(0.5, failures, 60.0) == limit


def test_a_first_delay_above_the_longest_is_cut_to_it() -> None:
    assert exponential(5.0, 0, 2.0) == 2.0


def test_jitter_stays_within_its_share_and_uses_it() -> None:
    around = [jittered(100.0, 0.1) for _ in range(500)]
    assert 90 <= min(around) < 93 and 107 < max(around) <= 110
    below = [full_jitter(100.0) for _ in range(500)]
    assert 0 <= min(below) < 5 and 95 < max(below) <= 100
