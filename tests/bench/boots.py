# SPDX-License-Identifier: Apache-2.0
"""What the module costs on real machines (systemd-nspawn).

One node boots with every step real and its control plane beside it, is powered off and on, and tells what the module
took and what it cost in CPU. Then its disk becomes an image (everything baked in) and boots as another node.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

from cc_sammy.contract.run_record import Status, StepRecord
from tests.bench.figures import Figure
from tests.lab import CloudInit, Machine, debian
from tests.vm.boots import AGAIN, OTHERS_WORK, built, state
from tests.vm.nodes import Node, node

TOP = Path(__file__).resolve().parents[2]
# Milliseconds; the journal entry's own are 20,566 and 677, 6,420 and 1,330.
BARS = {"nodejs-install": 2500.0, "devcontainer-cli": 100.0}
IN_THE_BOOT = {"firewall": 100.0, "docker-restart": 0.0}  # nothing runs beside the one, the other has no work
IMPORTS = (
    "import sys, time, cloudinit.cmd.main; t = time.perf_counter(); import cc_sammy; print(time.perf_counter() - t)"
)


def import_ms(runs: int) -> float:
    """Return what importing the module adds to cloud-init's own imports, milliseconds, the best of several."""
    command = ["/usr/bin/python3", "-c", IMPORTS]
    times = [float(subprocess.run(command, capture_output=True, check=True, cwd=TOP).stdout) for _ in range(runs)]
    return min(times) * 1000


def took(step: StepRecord) -> float:
    """Return a step's milliseconds; a skipped one has done nothing."""
    return 0.0 if step.status is Status.SKIPPED else step.duration_ms or 0.0


def alone(machine: Machine, runs: int) -> dict[str, float]:
    """Return what Node.js and the devcontainer CLI take with dpkg at rest, milliseconds, the median of several."""
    found: dict[str, list[float]] = {name: [] for name in BARS}
    for _ in range(runs):
        machine.run(["sh", "-c", "rm -rf /opt/sammy /usr/local/bin/*"])
        machine.run(AGAIN, timeout=120)
        for name, times in found.items():
            times.append(took(state(machine).step(name)))
    return {name: statistics.median(times) for name, times in found.items()}


def power_on(one: Node) -> tuple[CloudInit, float]:
    """Boot; return how cloud-init ended, and seconds from power-on to ready by the control plane's clock.

    Nobody asks before cloud-init has ended: on two cores the asking would be a good part of the figure.
    """
    begun = time.time()
    one.machine.start()
    ended = one.machine.wait_cloud_init(600)
    one.wait("running and healthy", lambda _: one.running_and_healthy, 120)
    return ended, datetime.fromisoformat(one.seen["readyAt"].replace("Z", "+00:00")).timestamp() - begun


def figures(*, quick: bool) -> list[Figure]:
    """Boot and measure."""
    found = [Figure("import of cc_sammy beside cloud-init's own", "ms", import_ms(3 if quick else 10), at_most=1.0)]
    with node("bench", debian(), built(), full=True) as one:
        machine = one.machine
        ended, ready = power_on(one)
        first = state(machine)
        ours = sum(ms for name, ms in first.children_cpu_ms.items() if not name.startswith(OTHERS_WORK))
        found += [
            Figure("first boot: power-on to running and healthy", "s", ready),
            Figure("first boot: power-on to cloud-init done", "s", ended.seconds),
            *(
                Figure(f"first boot: {step.name}", "ms", took(step), at_most=IN_THE_BOOT.get(step.name))
                for step in first.steps
            ),
            *(
                Figure(f"again, beside nothing: {name}", "ms", ms, at_most=BARS[name])
                for name, ms in alone(machine, 3 if quick else 9).items()
            ),
            Figure("first boot: all", "ms", first.duration_ms or 0.0),
            Figure("first boot: CPU of cc_sammy", "ms", first.own_cpu_ms or 0.0, at_most=150),
            Figure("first boot: CPU of its children but apt, dpkg, docker, tar", "ms", ours, at_most=1000),
        ]
        again = []
        for _ in range(1 if quick else 5):
            machine.poweroff()
            machine.start()
            machine.wait_cloud_init(300)
            again.append(state(machine))
        best = min(again, key=lambda record: record.duration_ms or 0.0)
        found += [
            Figure("second boot: the whole module", "ms", best.duration_ms or 0.0, at_most=300),
            Figure("second boot: CPU of cc_sammy", "ms", best.own_cpu_ms or 0.0, at_most=150),
        ]
        healthy = []
        for number in range(1 if quick else 5):
            machine.poweroff()
            one.become(f"baked-{number}")
            healthy.append(power_on(one)[1])
        baked = state(machine)
        found += [
            Figure("baked image, first boot: power-on to running and healthy", "s", min(healthy), at_most=6.0),
            Figure("baked image, first boot: the whole module", "ms", baked.duration_ms or 0.0),
        ]
    return found
