# SPDX-License-Identifier: Apache-2.0
"""A request that is under way, or just begins, when its way is gone."""

from __future__ import annotations

import time

import pytest

from tests.network import churn_scenarios as scenarios
from tests.network.churn_lab import SERVER4, SERVER6, Routed, laboratory
from tests.quiet_machine import timed

pytestmark = pytest.mark.needs("root")


IN_FLIGHT = """
import dataclasses, json, sys, threading, time
from sammy_agent.transport import ControlPlaneTransport
from tests.transport_profiles import fast
transport = ControlPlaneTransport(fast(ca_file=sys.argv[2]))
session = transport.session("a")
session.get(sys.argv[1])
print("ready", flush=True)
def news():
    for _ in sys.stdin:
        transport.remount("told")
threading.Thread(target=news, daemon=True).start()
start = time.monotonic()
status = session.post(sys.argv[1] + "/slow?wait=4", headers={"X-Sammy-Idempotency-Key": "k"}).status_code
print(json.dumps([status, time.monotonic() - start]), flush=True)
"""


@pytest.mark.parametrize("change", ["nat_forgets", "firewall_rewritten", "rule_changes"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@timed
def test_a_request_in_flight_ends_well(change: str, told: bool) -> None:
    """The server answers after 4 s; 1 s after the question the way back is gone. A probe heals it or proves it dead."""
    with laboratory(Routed(loose=1)) as lab:
        process = lab.start("client", ["-c", IN_FLIGHT, lab.url, lab.authority.ca_file])
        wait_for_arrival(lab, "/slow")
        getattr(lab, change)()
        if told:
            process.stdin.write("news\n")
            process.stdin.flush()
        status, seconds = scenarios.outcome(process)
    assert status == 200
    assert seconds < 16


HALF_OPEN = """
import json, sys, time
from sammy_agent.transport import ControlPlaneTransport
from tests.transport_profiles import fast
transport = ControlPlaneTransport(fast(ca_file=sys.argv[2]))
session = transport.session("a")
session.get(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
status = session.get(sys.argv[1]).status_code
print(json.dumps([status, time.monotonic() - start, transport.generation.number]), flush=True)
"""


@timed
def test_a_server_that_restarted_without_a_word() -> None:
    """Its FIN and RST are lost: the machine believes in a connection the server knows nothing of."""
    with laboratory(Routed(loose=1)) as lab:
        process = lab.start("client", ["-c", HALF_OPEN, lab.url, lab.authority.ca_file])
        with lab.outage():
            lab.restart_server()
        process.stdin.write("go\n")
        process.stdin.flush()
        status, seconds, generation = scenarios.outcome(process)
    assert status == 200
    assert generation <= 2  # 1 where a keepalive probe has found it out before the question
    assert seconds < 3


EYEBALLS = """
import json, socket, sys, time
socket.getaddrinfo = lambda host, port, **_: [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (sys.argv[3], port, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (sys.argv[4], port)),
]
from sammy_agent.transport import ControlPlaneTransport, TransportSettings
print("ready", flush=True)
took = []
for _ in range(5):
    transport = ControlPlaneTransport(TransportSettings(ca_file=sys.argv[2]))
    start = time.monotonic()
    assert transport.session("a").get(sys.argv[1]).text
    took.append(time.monotonic() - start)
print(json.dumps(min(took)), flush=True)
"""


@pytest.mark.parametrize("dead", ["ip6", "ip"])
@timed
def test_a_black_holed_family_costs_less_than_half_a_second(dead: str) -> None:

    with laboratory(Routed(loose=1)) as lab:
        chain = "{ type filter hook forward priority -10; policy drop; }"
        lab.sh("router", "nft -f -", f"add table {dead} dead\nadd chain {dead} dead through {chain}\n")
        words = ("https://control-plane.test", lab.authority.ca_file, SERVER6, SERVER4)
        seconds = scenarios.outcome(lab.start("client", ["-c", EYEBALLS, *words]))
    assert seconds < 0.5


def wait_for_arrival(lab: Routed, path: str) -> None:
    deadline = time.monotonic() + 20
    while not any(one[0] == path for one in lab.arrived()):
        assert time.monotonic() < deadline, f"{path} did not arrive"
        time.sleep(0.05)
