# SPDX-License-Identifier: Apache-2.0
"""What the first request of one more component costs: on the shared transport, and with a Session of its own.

Each case runs in a process of its own, so that neither warms the other: 30 components after a first one, the
least time and the mean growth of resident memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.unit.transport.faults import Authority, answer, serving

ROOT = str(Path(__file__).resolve().parents[2])
COMPONENTS = 30

PROGRAM = """
import gc, json, sys, time
import requests
kind, url, ca, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
if kind == "shared":
    from sammy_agent.transport import ControlPlaneTransport, TransportSettings
    transport = ControlPlaneTransport(TransportSettings(ca_file=ca))
    make = lambda number: transport.session(f"component-{number}")
else:
    def make(number):
        session = requests.Session()
        session.verify = ca
        session.trust_env = False
        return session

def resident():
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))

keep = [make(0)]
keep[0].post(url, data=b"x")
before, times = resident(), []
for number in range(count):
    start = time.perf_counter()
    keep.append(make(number))
    keep[-1].post(url, data=b"x")
    times.append(time.perf_counter() - start)
print(json.dumps([min(times), (resident() - before) / count]))
"""


def bundle(folder: str, ca_file: str) -> str:
    """Return a file with the test's authority and the system's: a private Session reads such a bundle each time."""
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    target = Path(folder, "bundle.pem")
    target.write_text(Path(ca_file).read_text() + (system.read_text() if system.exists() else ""))
    return str(target)


def measure(python: str = sys.executable) -> dict[str, float]:
    """Return milliseconds, KiB and the ratios shared / private."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        trusted = bundle(folder, authority.ca_file)
        with serving(answer, tls=authority.context("127.0.0.1")) as server:

            def one(kind: str) -> tuple[float, float]:
                argv = [python, "-W", "ignore", "-c", PROGRAM, kind, server.url, trusted, str(COMPONENTS)]
                environment = {**os.environ, "PYTHONPATH": ROOT}
                done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment, timeout=120)
                seconds, kib = json.loads(done.stdout)
                return seconds, kib

            shared, private = one("shared"), one("private")
    return {
        "shared_ms": shared[0] * 1e3,
        "private_ms": private[0] * 1e3,
        "shared_kib": shared[1],
        "private_kib": private[1],
        "seconds_ratio": shared[0] / private[0],
        "memory_ratio": shared[1] / private[1],
    }
