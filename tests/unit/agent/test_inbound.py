# SPDX-License-Identifier: Apache-2.0
"""The rhythm of the control plane's visits: what counts as one, and that many threads may tell of them."""

from __future__ import annotations

import threading

import pytest

from sammy_agent.daemon.firewall_watch.inbound_contact import MAX_VISITS, ContactStats, InboundContacts
from tests.unit.agent.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def come(inbound: InboundContacts, clock: Clock, *pauses: float) -> None:
    for pause in pauses:
        clock.now += pause
        inbound.record("192.0.2.1")


def test_one_that_never_came_has_no_rhythm(clock: Clock) -> None:
    inbound = InboundContacts(clock)
    assert inbound.stats() == ContactStats()
    assert inbound.snapshot() == {"requests": 0, "visits": 0, "last": None, "last_age_s": None, "last_peer": None}


def test_requests_in_a_row_are_one_visit(clock: Clock) -> None:
    inbound = InboundContacts(clock)
    come(inbound, clock, 0, 0.5, 0.9, 0.9, 30, 0.1, 60)
    stats = inbound.stats()
    assert (stats.visits, stats.last) == (3, clock.now)
    assert stats.longest_silence == pytest.approx(60.1)
    clock.now += 7
    told = inbound.snapshot()
    assert (told["requests"], told["visits"], told["last_age_s"], told["last_peer"]) == (7, 3, 7.0, "192.0.2.1")
    assert told["last"].endswith("+00:00")


def test_an_old_long_silence_is_forgotten(clock: Clock) -> None:
    inbound = InboundContacts(clock)
    come(inbound, clock, 0, 9000, *[30] * (MAX_VISITS - 2))
    assert inbound.stats().longest_silence == 9000
    come(inbound, clock, 30, 30)
    assert inbound.stats().longest_silence == 30


def test_many_threads_tell_of_every_request() -> None:
    inbound = InboundContacts()

    def come_often() -> None:
        for _ in range(500):
            inbound.record("::1")

    threads = [threading.Thread(target=come_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inbound.snapshot()["requests"] == 4000
    assert inbound.stats().visits >= 1
