# SPDX-License-Identifier: Apache-2.0
"""The monitor's decisions on made-up messages and clocks; real kernels: tests/network/test_transport_monitor.py."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from sammy_agent.transport import NetworkMonitor
from sammy_agent.transport.netlink import Change, Filter, attributes, firewall_changes, messages
from sammy_agent.transport.network_monitor import CLOCK_CHECK, Burst, Clocks
from tests.network.firewall_lab import wait_until

LINKS = {2: "eth0", 3: "docker0", 4: "veth1", 5: "br-uplink"}


def message(kind: int, body: bytes) -> bytes:
    padded = body + b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + padded


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def link(index: int, flags: int = 0x10043, *, gone: bool = False) -> bytes:
    fixed = struct.pack("=BxHiII", 0, 1, index, flags, 0)
    return message(17 if gone else 16, fixed + attribute(3, LINKS[index].encode() + b"\0") + attribute(16, b"\6"))


def address(index: int, text: str = "192.0.2.7", *, gone: bool = False) -> bytes:
    fixed = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, index)
    return message(21 if gone else 20, fixed + attribute(2, socket.inet_aton(text)))


def route(index: int, lifetime: bytes = b"\0" * 32, *, gone: bool = False) -> bytes:
    fixed = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0)
    return message(25 if gone else 24, fixed + attribute(4, struct.pack("=I", index)) + attribute(12, lifetime))


@pytest.fixture
def news() -> Filter:
    return Filter(lambda: frozenset({"eth0", "br-uplink"}), lambda index: LINKS.get(index, ""))


class TestFilter:
    def test_what_is_news_and_what_repeats(self, news: Filter) -> None:
        for data, reason in (
            (link(2), "link eth0 changed"),
            (address(2), "link eth0 got an address"),
            (route(2), "a route by eth0 changed"),
        ):
            assert [change.reason for change in news.changes(data)] == [reason]
            assert news.changes(data) == []

    def test_a_flap_is_news_twice(self, news: Filter) -> None:
        news.changes(link(2))
        assert len(news.changes(link(2, flags=0x1002))) == 1
        assert len(news.changes(link(2))) == 1

    def test_a_lifetime_renewed_is_no_news(self, news: Filter) -> None:
        news.changes(route(2))
        assert news.changes(route(2, lifetime=b"\7" * 32)) == []

    def test_what_goes_away_is_news(self, news: Filter) -> None:
        for data in (link(2, gone=True), address(2, gone=True), route(2, gone=True)):
            assert len(news.changes(data)) == 1

    @pytest.mark.parametrize("index", [3, 4])
    def test_containers_are_none_of_ours(self, news: Filter, index: int) -> None:
        for data in (link(index), address(index), route(index), link(index, gone=True)):
            assert news.changes(data) == []

    def test_a_bridge_with_the_default_route_is_ours(self, news: Filter) -> None:
        assert len(news.changes(link(5))) == 1

    def test_a_link_whose_default_route_has_just_gone_is_ours(self) -> None:
        answers = [frozenset({"br-uplink"}), frozenset()]
        news = Filter(lambda: answers.pop(0), lambda index: LINKS.get(index, ""))
        assert len(news.changes(route(5, gone=True))) == 1

    def test_rules_always(self, news: Filter) -> None:
        assert news.changes(message(32, b"\0" * 12)) == [Change("a routing rule changed", affects_routing=True)]

    @pytest.mark.parametrize("data", [b"", b"\1", link(2)[:20], struct.pack("=IHHII", 5, 16, 0, 0, 0), b"\xff" * 64])
    def test_broken_messages_are_no_news(self, news: Filter, data: bytes) -> None:
        assert news.changes(data) == []

    def test_several_messages_in_one_read(self, news: Filter) -> None:
        assert len(news.changes(link(2) + address(2) + link(3) + route(2))) == 3
        assert len(list(messages(link(2) + address(2)))) == 2

    def test_attributes_cut_short_end_the_list(self) -> None:
        assert attributes(attribute(1, b"ab") + b"\x40\x00\x02\x00x", 0) == {1: b"ab"}

    def test_one_firewall_commit_is_one_change(self) -> None:
        rule, commit = message((10 << 8) | 6, b"\0" * 4), message((10 << 8) | 15, b"\0" * 4)
        assert firewall_changes(rule) == []
        assert firewall_changes(rule * 20 + commit) == [Change("the firewall's rules changed", affects_routing=False)]


class TestBurst:
    PATH, WALL = Change("path", affects_routing=True), Change("wall", affects_routing=False)

    def test_it_ends_after_a_pause(self) -> None:
        burst = Burst()
        assert burst.wait(10.0) is None
        burst.add(self.PATH, 10.0)
        burst.add(self.PATH, 10.1)
        assert burst.wait(10.1) == pytest.approx(0.15)
        assert burst.wait(10.3) == 0
        assert burst.take() == "path"
        assert burst.wait(10.3) is None

    @pytest.mark.parametrize(("change", "cap"), [(PATH, 1.0), (WALL, 5.0)], ids=["path", "firewall"])
    def test_without_a_pause_it_ends_at_the_cap(self, change: Change, cap: float) -> None:
        burst, now = Burst(), 10.0
        while burst.wait(now) != 0:
            burst.add(change, now)
            now += 0.1
        assert now - 10.0 == pytest.approx(cap, abs=0.15)

    def test_a_change_of_the_path_shortens_a_firewalls_burst(self) -> None:
        burst = Burst()
        burst.add(self.WALL, 10.0)
        burst.add(self.PATH, 10.1)
        burst.add(self.WALL, 11.05)
        assert burst.wait(11.05) == pytest.approx(0.05)

    def test_many_reasons_are_cut_short(self) -> None:
        burst = Burst()
        for number in range(5):
            burst.add(Change(f"r{number}", affects_routing=True), 1.0)
            burst.add(Change(f"r{number}", affects_routing=True), 1.0)
        assert burst.take() == "r0; r1; r2 and 2 more"


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        ((15.0, 15.0, 15.0), None),
        ((15.0, 15.0, 18.0), None),
        ((15.0, 75.0, 75.0), "the machine slept for 60 s"),
        ((15.0, 15.0, 3615.0), "the clock was set by +3600 s"),
        ((15.0, 15.0, -85.0), "the clock was set by -100 s"),
        ((4 * CLOCK_CHECK,) * 3, "the machine stood still for 60 s"),
    ],
    ids=["as usual", "a small correction", "sleep", "set forward", "set back", "stopped"],
)
def test_clocks(moved: tuple[float, float, float], reason: str | None) -> None:
    readings = [(100.0, 200.0, 300.0), (100.0 + moved[0], 200.0 + moved[1], 300.0 + moved[2])]
    clocks = Clocks(lambda: readings.pop(0))
    assert clocks.jump() == reason


class TestThread:
    def test_it_starts_once_says_what_it_cannot_see_and_stops(self) -> None:
        monitor = NetworkMonitor(lambda _: None)
        before = threading.active_count()
        monitor.start()
        monitor.start()
        assert threading.active_count() == before + 1
        assert "losses beyond this machine" in monitor.blind_spots
        assert repr(monitor).startswith("<NetworkMonitor listening, 0 changes passed on, blind to losses beyond")
        monitor.stop()
        monitor.stop()
        assert threading.active_count() == before
        assert repr(monitor).startswith("<NetworkMonitor stopped")

    def test_news_that_fails_is_survived(self, caplog: pytest.LogCaptureFixture) -> None:
        heard: list[str] = []

        def broken(reason: str) -> None:
            heard.append(reason)
            raise RuntimeError("no")

        monitor = NetworkMonitor(broken)
        monitor.start()
        try:
            for number in (1, 2):
                monitor._notify(f"r{number}")
            wait_until(lambda: heard == ["r1", "r2"], "both were passed on", 10)
            assert monitor.changes == 2
            assert "handling a network change failed" in caplog.text
        finally:
            monitor.stop()
