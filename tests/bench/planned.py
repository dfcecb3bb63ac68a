# SPDX-License-Identifier: Apache-2.0
"""What the plan makes of the journal entry's own step durations: one after the other, and side by side, in one run.

The steps are ours with their needs, order and resources; each sleeps for what it took in the journal entry, scaled.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial

from cc_sammy import config
from cc_sammy.cli import critical_path
from cc_sammy.contract import paths
from cc_sammy.contract.run_record import RunRecord, StepRecord
from cc_sammy.engine.cloud_init_stages import StageTimeline
from cc_sammy.engine.run_reporter import RunReporter
from cc_sammy.engine.runner import Runner
from cc_sammy.host.host import Host
from cc_sammy.steps import declared
from cc_sammy.steps.base import Step
from tests.bench.figures import Figure

# Milliseconds, from the journal entry this project comes from; agent-install was no step there.
JOURNAL = {
    "packages": 17157, "docker": 854, "firewall": 6420, "agent-install": 0, "tls-permissions": 0,
    "nodejs-install": 20566, "devcontainer-cli": 677, "journald-config": 56, "image-prepull": 10087,
    "docker-restart": 1330, "metadata-block": 525,
}  # fmt: skip
ROOM = 1.05  # of the critical path
# What the journal entry's boot would have cost by its critical path, seconds: Node.js off apt's lock, and on it.
OFF_THE_LOCK, ON_THE_LOCK = 21.2, 44.1


def sleep(seconds: float, host: Host, loaded: config.Config) -> None:
    """Do a step's work: nothing, for so long."""
    time.sleep(seconds)


def pretend(durations: dict[str, float], *, node_on_apt: bool = False, firewall_first: bool = True) -> tuple[Step, ...]:
    """Return our steps, each sleeping so many seconds instead of working; Docker is in the image, as it was there.

    :param firewall_first: as ours is, for it takes 0.1 s; the journal entry's took 6.4 s, which others could use.
    """

    def one(step: Step) -> Step:
        exclusive = step.exclusive_resources | (
            {"apt"} if node_on_apt and step.name == "nodejs-install" else frozenset()
        )
        beside = not firewall_first and step.name in ("packages", "nodejs-install")
        return replace(
            step,
            already_done=lambda host, loaded: None,
            run=partial(sleep, durations[step.name]),
            verify=lambda host, loaded: True,
            exclusive_resources=frozenset(exclusive),
            after=() if beside else step.after,
        )

    return tuple(one(step) for step in declared(docker_in_image=True))


def run(steps: tuple[Step, ...], user: dict[str, object]) -> tuple[RunRecord, float]:
    """Run them and return the record and the wall time in seconds; files go to a directory of their own."""
    loaded = config.load(user)
    record = RunRecord("20260101T000000-bench", "b", "i", Host().boottime(), "")
    record.steps = [
        StepRecord(step.name, after=[*step.needs, *step.after], uses=sorted(step.exclusive_resources)) for step in steps
    ]
    usual = paths.STATE, paths.RUNS
    with tempfile.TemporaryDirectory() as folder:
        paths.STATE, paths.RUNS = f"{folder}/state.json", f"{folder}/runs"
        try:
            reporter = RunReporter(Host(), record, StageTimeline(None))
            begun = time.perf_counter()
            Runner(steps, Host(), loaded, record, reporter).run()
            reporter.record_writer.flush()
            return record, time.perf_counter() - begun
        finally:
            paths.STATE, paths.RUNS = usual


def planned(scale: float, **how: bool) -> tuple[float, float]:
    """Return wall time and critical path in the journal's seconds."""
    durations = {name: ms / 1000 / scale for name, ms in JOURNAL.items()}
    record, wall = run(pretend(durations, **how), {})
    ends = critical_path.end_times(
        critical_path.spans(record), {name: value * 1000 for name, value in durations.items()}
    )
    return wall * scale, max(ends.values()) / 1000 * scale


def figures(*, quick: bool) -> list[Figure]:
    """Measure: in the quick form 15 times faster than the boot, else 4 times."""
    scale = 15.0 if quick else 4.0
    _, serial = run(pretend({name: ms / 1000 / scale for name, ms in JOURNAL.items()}), {"max_parallel": 1})
    beside, beside_path = planned(scale, firewall_first=False)
    on, on_path = planned(scale, node_on_apt=True)
    first, first_path = planned(scale)
    _, ours = run(pretend({name: ms / 1000 / scale for name, ms in {**JOURNAL, "firewall": 100}.items()}), {})
    nothing = dict.fromkeys(JOURNAL, 0.0)
    idle = min(run(pretend(nothing), {"max_parallel": 1})[1] for _ in range(15))
    return [
        Figure("one after the other (the journal entry: 57.6 s)", "s", serial * scale),
        Figure("planned, Node.js off apt's lock, firewall beside", "s", beside, at_most=OFF_THE_LOCK * ROOM),
        Figure("  to its critical path", "ratio", beside / beside_path, at_most=ROOM),
        Figure("planned, Node.js on apt's lock", "s", on, at_most=ON_THE_LOCK * ROOM),
        Figure("  to its critical path", "ratio", on / on_path, at_most=ROOM),
        Figure("planned, off the lock, firewall first, of 6.4 s as then", "s", first),
        Figure("  to its critical path", "ratio", first / first_path, at_most=ROOM),
        Figure(
            "planned, off the lock, firewall first, of 0.1 s as ours", "s", ours * scale, at_most=OFF_THE_LOCK * ROOM
        ),
        Figure("runner, state file and run record, per step", "ms", idle / len(JOURNAL) * 1000, at_most=5.0),
    ]
