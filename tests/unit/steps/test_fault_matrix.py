# SPDX-License-Identifier: Apache-2.0
"""Every step meets every fault at every point where it acts on the machine: the box stays open to those who may reach
it, the truth is told, the rest runs, and the next run heals it and repeats nothing.

The machine is one in memory with named fault points (fault_machine.py), booted in three ways; a cell is one step and
one fault, met at each point in turn. A cell that has no point has its reason here, and fails when it gets one.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_filesystem_unittest import Patcher

from cc_sammy.config import Config
from cc_sammy.contract import paths
from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from cc_sammy.engine import provision, run_record_writer, run_reporter
from cc_sammy.engine.journal_writer import ERROR
from cc_sammy.errors import SammyError
from cc_sammy.host.host import Host
from cc_sammy.steps import declared, docker, packages
from tests.unit.fake_files import new_disk
from tests.unit.steps.fault_machine import FAULTS, IMAGE, KEY, Fault, FaultMachine, Point, played

ALL = {step.name: step for step in declared(swap_is_applicable=True)}
OTHERS = {"docker.io", "nodejs", "sammy-agent"}  # packages of other steps than packages
NO_COMMAND = "it runs no command"
NO_DOWNLOAD = "it fetches nothing"
NO_APT = "it uses no apt"
# Step -> fault -> why it cannot be met.
NOT_MET: dict[str, dict[str, str]] = {
    **{
        name: {
            **dict.fromkeys(("no-network", "dns-dead", "corrupt-download"), NO_DOWNLOAD),
            "lock-held": NO_APT,
        }
        for name in ("firewall", "journald-config", "docker-restart", "metadata-block", "swap", "tls-permissions")
    },
    "devcontainer-cli": {"lock-held": NO_APT},
    "image-prepull": {"lock-held": NO_APT},
}
NOT_MET["tls-permissions"] |= dict.fromkeys(("exit", "killed", "hang"), NO_COMMAND)
NOT_MET["docker-restart"] |= dict.fromkeys(("disk-full", "permission-denied", "read-only"), "it writes nothing")
NOT_MET["docker"] = {"read-only": "step packages has written its daemon.json, and commands meet a full disk"}
NOT_MET["image-prepull"] |= {"read-only": "dockerd writes for it, whose words are those of a full disk"}


def fresh(machine: FaultMachine) -> dict[str, Any]:
    """Nothing is installed; packages fetches for everybody, Node.js comes as an archive."""
    return {
        "nodejs": {"source": "archive", "version": "22.0.0", "sha256": "0" * 64, "urls": ["http://192.0.2.1/n"]},
        "devcontainer_cli": {"version": "0.1.0", "integrity": f"sha512-{'A' * 86}==", "urls": ["http://192.0.2.1/d"]},
        "packages": {"unattended_upgrades": "off"},
        "image_prepull": {"images": [IMAGE]},
        "swap": {"size_mb": 1},
        "tls": {"key_file": KEY, "certificate_file": KEY.replace(".key", ".crt")},
        "max_parallel": 1,  # so that it is always the same step that comes first to what two share
    }


def refused(machine: FaultMachine) -> dict[str, Any]:
    """The one transaction cannot be had, so each step fetches what it stands on itself."""
    machine.refuses = set(OTHERS)
    return {**fresh(machine), "nodejs": {"source": "distro"}}


def baked(machine: FaultMachine) -> dict[str, Any]:
    """An image with a dockerd that runs and has not read our configuration; the agent comes by its address."""
    machine.lay_out({"/usr/sbin/dockerd": ""}, 0o755)
    machine.installed |= {"docker.io", "git", "curl", "wget", "jq", "htop", "vim"}
    machine.active.add(docker.UNIT)
    agent = {"source": "url", "url": "http://192.0.2.1/sammy-agent.deb", "sha256": "0" * 64}
    return {**fresh(machine), "agent": agent}


BOOTS = (fresh, refused, baked)


class Heard:
    """A journal that keeps what it is sent."""

    lost = 0

    def __init__(self) -> None:
        self.events: list[dict[str, str]] = []

    def send(self, message: str, priority: int, more: dict[str, str]) -> None:
        self.events.append({**more, "MESSAGE": message, "PRIORITY": str(priority)})

    def flush(self) -> None:
        """Nothing is left to send."""


class Lab:
    """One machine, and what its runs told."""

    def __init__(self, fs: FakeFilesystem, boot: Any, patch: pytest.MonkeyPatch) -> None:
        new_disk(fs)
        self.machine = FaultMachine(fs)
        self.options = boot(self.machine)
        self._patch = patch
        self.written: dict[str, str] = {}
        self.heard = Heard()

    def run(self, fault: Fault | None) -> RunRecord:
        """Do one run, in which the fault is met."""
        self.machine.fault, self.machine.met = fault, 0
        self.machine.no_room.clear()
        self.heard = Heard()
        # What the run writes of itself, 36 times, is no step's: kept here, where it takes no tenth of a second.
        for module in (run_reporter, run_record_writer):
            self._patch.setattr(module, "files", SimpleNamespace(write_text=self._keep))
        self._patch.setattr(run_reporter, "JournalWriter", lambda: self.heard)
        self._patch.delenv("SAMMY_REQUIRE", raising=False)  # the tests' own, and no option's
        return provision.provision(copy.deepcopy(self.options), self.machine, "i", None, 0.0)

    def _keep(self, path: str, text: str, **_: Any) -> bool:
        self.written[path] = text
        return True


@pytest.fixture(scope="module")
def points() -> dict[Point, Any]:
    """Return each point that a step passes, with a boot that passes it; a well machine becomes ready in each."""
    found: dict[Point, Any] = {}
    for boot in BOOTS:
        with Patcher() as patcher, pytest.MonkeyPatch.context() as patch:
            assert patcher.fs is not None
            lab = Lab(patcher.fs, boot, patch)
            with played(lab.machine, patch):
                record = lab.run(None)
                assert (record.outcome, record.reason) == (Outcome.READY, "")
                for point in lab.machine.passed:
                    found.setdefault(point, boot)
                again = lab.run(None)
        assert {step.name: step.reason for step in again.steps if step.status is not Status.SKIPPED} == {}
    return found


def cells() -> Iterator[tuple[str, str]]:
    for step in ALL:
        for fault in FAULTS:
            if fault not in NOT_MET.get(step, {}):
                yield step, fault


@pytest.mark.parametrize(("step", "kind"), list(cells()), ids=str)
def test_the_fault_is_told_the_rest_runs_and_the_next_run_heals(
    step: str, kind: str, points: dict[Point, Any], fs: FakeFilesystem
) -> None:
    met = [(Fault(kind, point), boot) for point, boot in points.items() if point.step == step and kind in point.meets]
    assert met, "no point: say in NOT_MET why"
    for fault, boot in met:
        with pytest.MonkeyPatch.context() as patch:
            lab = Lab(fs, boot, patch)
            with played(lab.machine, patch):
                meets(lab, fault)


def meets(lab: Lab, fault: Fault) -> None:
    where = f"{fault.kind} at {fault.point.name}"
    record = lab.run(fault)
    assert lab.machine.met, f"{where} was not met"
    failed = {one.name for one in record.steps if one.status is Status.FAILED}
    told(lab, record, fault, where)
    # The rest ran: all but the step and what cannot be without it.
    assert fault.point.step in failed, where
    assert failed <= {fault.point.step, *needing(fault.point.step)}, f"{where}: {record.reason}"
    assert all(one.status is not Status.PENDING for one in record.steps)
    stays_open_to_those_who_may(lab.machine, record)
    # The next run heals it, and repeats nothing that was finished.
    finished = {one.name for one in record.steps if one.status in (Status.COMPLETED, Status.SKIPPED)}
    if lab.machine.refuses - lab.machine.installed:
        finished.discard("packages")  # it asks for what another step could not have either
    healed = lab.run(None)
    assert (healed.outcome, healed.reason) == (Outcome.READY, ""), where
    repeated = {one.name for one in healed.steps if one.status is Status.COMPLETED} & finished
    assert repeated == set(), f"{where}: {repeated} again"


def test_a_step_that_hides_its_failure_would_be_found(points: dict[Point, Any], fs: FakeFilesystem) -> None:
    def hides(host: Host, loaded: Config) -> None:
        with contextlib.suppress(SammyError):
            packages.run(host, loaded)

    liar = replace(packages.STEP, run=hides, verify=lambda host, loaded: True)
    point = next(one for one in points if (one.step, one.name) == ("packages", "apt-get install"))
    with pytest.MonkeyPatch.context() as patch:
        lab = Lab(fs, points[point], patch)
        patch.setattr(packages, "STEP", liar)
        with played(lab.machine, patch), pytest.raises(AssertionError, match="exit at apt-get install"):
            meets(lab, Fault("exit", point))


def told(lab: Lab, record: RunRecord, fault: Fault, where: str) -> None:
    """The truth is in the record, both files and the journal: which step, why, and what that makes of the node."""
    step = record.step(fault.point.step)
    assert fault.words in step.reason, f"{where}: {step.reason}"
    assert record.outcome is (Outcome.FAILED if required(record) else Outcome.DEGRADED)
    assert f"{step.name}: {step.reason}" in record.reason
    for path in (paths.STATE, f"{paths.RUNS}/{record.run_id}.json"):
        assert RunRecord.from_json(lab.written[path]) == record
    said = [event for event in lab.heard.events if event.get("SAMMY_STEP") == step.name]
    assert [event["SAMMY_REASON"] for event in said if event.get("SAMMY_STATUS") == "failed"] == [step.reason]
    assert {event["PRIORITY"] for event in said if event.get("SAMMY_STATUS") == "failed"} == {str(ERROR)}
    whole = lab.heard.events[-1]
    assert (whole["SAMMY_EVENT"], whole["SAMMY_REASON"]) == ("provision.all", record.reason)
    assert record.outcome.value in whole["MESSAGE"]


def required(record: RunRecord) -> bool:
    return any(one.required for one in record.steps if one.status is Status.FAILED)


def needing(name: str) -> set[str]:
    direct = {step.name for step in ALL.values() if name in step.needs}
    return direct.union(*(needing(one) for one in direct))


def stays_open_to_those_who_may(machine: FaultMachine, record: RunRecord) -> None:
    """Rules come whole or not at all, nothing else touches the packet filter, and no agent listens unguarded."""
    filters = {call[0] for call in machine.calls if call[0] in ("nft", "iptables", "iptables-restore", "ip6tables")}
    assert filters <= {"nft"}
    if record.step("firewall").status is Status.FAILED:
        assert "sammy-agent.service" not in machine.active


def test_no_cell_is_skipped_silently(points: dict[Point, Any]) -> None:
    """Prints the matrix: points a cell is met at, or why it cannot be."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    for point in points:
        for kind in point.meets:
            count[point.step, kind] += 1
    print("\n".join(matrix(count)))
    unmet = {(step, kind) for step in ALL for kind in FAULTS if not count[step, kind]}
    assert unmet == {(step, kind) for step, kinds in NOT_MET.items() for kind in kinds}
    assert {step for step, _ in count} == set(ALL), "a step without any point"


def matrix(count: dict[tuple[str, str], int]) -> Sequence[str]:
    lines = ["", f"{'':17}" + " ".join(f"{kind:>17}" for kind in FAULTS)]
    lines += [f"{step:17}" + " ".join(f"{count[step, kind] or '-':>17}" for kind in FAULTS) for step in ALL]
    met = sum(1 for step in ALL for kind in FAULTS if count[step, kind])
    lines.append(
        f"{met} of {len(ALL) * len(FAULTS)} cells, met at {sum(count.values())} points. Not met, each with why:"
    )
    lines += [f"  {step}: {kind}: {why}" for step, kinds in NOT_MET.items() for kind, why in kinds.items()]
    return lines
