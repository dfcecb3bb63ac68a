# SPDX-License-Identifier: Apache-2.0
"""Remounts without mercy, the price of a component, and what an idle transport costs."""

from __future__ import annotations

import collections
import gc
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from sammy_agent.transport import IDEMPOTENCY_HEADER
from tests.bench import first_request
from tests.network.firewall_lab import wait_until
from tests.unit.transport.conftest import Make, Serve
from tests.unit.transport.faults import answer

ROOT = str(Path(__file__).resolve().parents[3])
THREADS, REMOUNTS = 12, 2000


def test_twelve_threads_and_two_thousand_remounts(serve: Serve, make: Make) -> None:
    server, transport = serve(answer), make()
    before = len(os.listdir("/proc/self/fd"))
    done = threading.Event()
    sent: list[str] = []
    errors: list[Exception] = []

    def work(number: int) -> None:
        session = transport.session(f"component-{number}")
        while not done.is_set():
            # Half of the requests have no key: nothing would repeat them, so each must arrive at its first try.
            key = uuid.uuid4().hex
            name = IDEMPOTENCY_HEADER if number % 2 else "X-Only-Ours"
            try:
                session.post(server.url + key, data=b"x" * (100_000 if number % 3 == 0 else 10), headers={name: key})
                sent.append(key)
            except Exception as error:
                errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for number in range(REMOUNTS):
        transport.remount(f"stress {number % 3}")
        time.sleep(0)  # let others run
    wait_until(lambda: len(sent) >= 200, "requests went through meanwhile", 60)
    done.set()
    for worker in workers:
        worker.join(60)
    assert errors == []
    assert transport.generation.number == REMOUNTS + 1
    arrived = collections.Counter(exchange.path[1:] for exchange in server.requests)
    assert set(sent) == set(arrived)
    assert max(arrived.values()) == 1
    transport.remount("the last")
    gc.collect()
    wait_until(lambda: server.open == 0, "no socket is left", 60)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_components_first_request_is_cheap() -> None:
    found = first_request.measure()
    assert found["seconds_ratio"] < 0.3, found
    assert found["memory_ratio"] < 0.2, found


IDLE = """
import glob, json, os, sys, threading, time
from sammy_agent.transport import ControlPlaneTransport, NetworkMonitor
from tests.transport_profiles import fast
transport = ControlPlaneTransport(fast(ca_file=sys.argv[2]))
monitor = NetworkMonitor(transport.remount)
monitor.start()
for number in range(5):
    transport.session(f"component-{number}").get(sys.argv[1])

def wakes():
    found = {}
    for path in glob.glob("/proc/self/task/*/status"):
        with open(path) as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        found[path.split("/")[4]] = int(lines["voluntary_ctxt_switches"])
    return found

time.sleep(1)
before = wakes()
time.sleep(6)
after = wakes()
own = str(threading.get_native_id())
print(json.dumps({"threads": len(after), "wakes": sum(after[one] - before.get(one, 0) for one in after if one != own)}))
"""


def test_idle_it_wakes_for_nothing(serve: Serve, make: Make) -> None:
    """One thread beside the program's own, the monitor; at most its clock check and a message in 6 s."""
    server, transport = serve(answer), make()
    argv = [sys.executable, "-c", IDLE, server.url, str(transport.settings.ca_file)]
    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": ROOT}
    )
    found = json.loads(done.stdout)
    assert found["threads"] == 2
    assert found["wakes"] <= 3
