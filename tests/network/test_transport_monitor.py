# SPDX-License-Identifier: Apache-2.0
"""The network monitor beside real changes of a real kernel."""

from __future__ import annotations

import json
import time

import pytest

from tests.network.churn_lab import Routed, laboratory

pytestmark = pytest.mark.needs("root")


MONITORED = """
import json, sys, threading, time
from sammy_agent.transport import NetworkMonitor
heard = []
monitor = NetworkMonitor(heard.append)
monitor.start()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps([heard, list(monitor.blind_spots)]), flush=True)
"""


class TestMonitor:
    """What the monitor says of real changes, in a real kernel."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("link_flaps", "link up0 changed"),
            ("own_address_changes", "link up0 lost an address"),
            ("firewall_rewritten", "the firewall's rules changed"),
            ("rule_changes", "the firewall's rules changed"),
        ],
    )
    def test_local_changes_are_heard_once(self, change: str, reason: str) -> None:
        with laboratory(Routed(loose=1)) as lab:
            process = lab.start("client", ["-c", MONITORED])
            getattr(lab, change)()
            heard = self.heard(process, at_least=1)
            assert reason in "; ".join(heard)
            # a link's coming up again may outlast the pause that ends a burst
            assert len(heard) <= 2, heard

    def test_container_churn_is_one_piece_of_news_at_most(self) -> None:
        with laboratory(Routed(loose=1)) as lab:
            process = lab.start("client", ["-c", MONITORED])
            lab.sh("client", "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0")
            lab.sh("client", "ip link set docker0 up")
            for number in range(5):
                pair = f"veth{number} type veth peer name eth-c{number} netns {lab.names['router']}"
                lab.sh(
                    "client",
                    f"ip link add {pair}; ip link set veth{number} master docker0 up; ip link del veth{number}",
                )
            lab.sh("client", "ip link del docker0; ip rule add pref 77 table main")  # the rule is the end mark
            heard = self.heard(process, at_least=1)
            assert len(heard) == 1, heard
            assert "a routing rule changed" in heard[0]

    def test_what_repeats_is_no_news(self) -> None:
        """A DHCP client renews its lease: the same address and route again."""
        with laboratory(Routed(loose=1)) as lab:
            process = lab.start("client", ["-c", MONITORED])
            renew = "ip addr replace 10.92.1.2/24 dev up0 valid_lft 3600 preferred_lft 3600"
            lab.sh("client", renew)
            first = len(self.heard(process, at_least=1))
            for _ in range(3):
                lab.sh("client", renew)
            lab.sh("client", "ip rule add pref 77 table main")
            assert len(self.heard(process, at_least=first + 1)) == first + 1

    def test_a_router_that_forgets_is_not_heard(self) -> None:
        """The reason why the transport does not rest on the monitor."""
        with laboratory(Routed(loose=0)) as lab:
            process = lab.start("client", ["-c", MONITORED])
            lab.nat_forgets()
            lab.sh("client", "ip rule add pref 77 table main")
            assert self.heard(process, at_least=1) == ["a routing rule changed"]

    def heard(self, process: object, at_least: int) -> list[str]:

        deadline = time.monotonic() + 20
        while True:
            process.stdin.write("?\n")  # type: ignore[attr-defined]
            process.stdin.flush()  # type: ignore[attr-defined]
            heard: list[str]
            heard, blind_spots = json.loads(process.stdout.readline())  # type: ignore[attr-defined]
            assert blind_spots == ["losses beyond this machine", "iptables-legacy"]
            if len(heard) >= at_least:
                return heard
            assert time.monotonic() < deadline, heard
            time.sleep(0.1)
