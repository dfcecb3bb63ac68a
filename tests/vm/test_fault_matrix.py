# SPDX-License-Identifier: Apache-2.0
"""Every step meets every fault it can meet, for real: the box stays reachable, the truth is told, the rest runs, and
the next run heals it. What is met here is a part of tests/unit/steps/test_fault_matrix.py, which has every cell.

One machine is booted to ready. For each cell the step's work is undone, the fault is made, the module runs again; then
the fault is mended and it runs once more. A fault in a command is a program of that name that stands first on PATH.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import Base
from tests.vm.boots import AGAIN, KEY, STEPS, Boot, full_boot, listen, reaches, state

pytestmark = pytest.mark.needs("root", "nspawn")
SHIMS = "/usr/local/sbin"
DEADLINE = 6  # seconds for a step that hangs


def forgotten(kept: str, table: str) -> str:
    """What takes a table of rules away, and the file that brings it back."""
    return f"rm -f /var/lib/sammy/firewall/{kept}; nft 'add table inet {table}; delete table inet {table}'"


# How a step's work is undone, so that the next run has it to do.
UNDO = {
    "packages": "apt-get -qq -o DPkg::Lock::Timeout=60 purge -y jq",
    "docker": "rm -f /etc/docker/daemon.json",
    "firewall": forgotten("applied.nft", "sammy"),
    "agent-install": "rm -f /etc/sammy/agent.json",
    "tls-permissions": f"chmod 644 {KEY}",
    "nodejs-install": "rm -rf /opt/sammy/nodejs",
    "devcontainer-cli": "rm -rf /opt/sammy/devcontainer-cli",
    "journald-config": "rm -f /etc/systemd/journald.conf.d/60-sammy.conf",
    "image-prepull": "docker rmi --force {image} >/dev/null",
    "docker-restart": "systemctl show docker -P InvocationID > /run/sammy/docker-restart-needed",
    "metadata-block": forgotten("metadata.nft", "sammy_metadata"),
}
# The command in which it fails, and the words of its call that make it this step's.
COMMAND = {
    "packages": ("apt-get", "*install*jq*"),
    "docker": ("systemctl", "*enable*docker*"),
    "firewall": ("nft", "*-f?-*"),
    "agent-install": ("systemctl", "*enable*sammy-agent*"),
    "nodejs-install": ("tar", "*nodejs*"),
    "devcontainer-cli": ("tar", "*devcontainer*"),
    "journald-config": ("systemctl", "*restart*journald*"),
    "docker-restart": ("systemctl", "*restart*docker*"),
    "metadata-block": ("nft", "*-f?-*"),
}
FAULTS = {
    "exit": ("echo 'a fault of the test' >&2; exit 1", "a fault of the test"),
    "killed": ("kill -KILL $$", "killed by signal 9"),
    "hang": ("exec sleep 1000", "was killed after"),
}
# Where the step writes: a full or read-only file system there.
WRITES = {
    "docker": "/etc/docker",
    "agent-install": "/etc/sammy",
    "nodejs-install": "/opt/sammy",
    "devcontainer-cli": "/opt/sammy",
    "journald-config": "/etc/systemd/journald.conf.d",
    "firewall": "/var/lib/sammy/firewall",
    "metadata-block": "/var/lib/sammy/firewall",
}
DOWNLOADS = ("nodejs-install", "devcontainer-cli")
# A hang costs its deadline, and one step dies as the other: one of each kind of command is enough here.
HUNG = ("packages", "docker", "firewall", "nodejs-install", "metadata-block")
KILLED = ("packages", "firewall", "agent-install", "devcontainer-cli")
READ_ONLY = ("docker", "nodejs-install", "firewall")


@dataclass(frozen=True)
class Cell:
    """One step meeting one fault; `words` must be in what is told."""

    step: str
    fault: str
    words: str

    def __str__(self) -> str:
        return f"{self.step}-{self.fault}"


CELLS = (
    [Cell(step, "exit", FAULTS["exit"][1]) for step in COMMAND]
    + [Cell(step, "hang", FAULTS["hang"][1]) for step in HUNG]
    + [Cell(step, "killed", FAULTS["killed"][1]) for step in KILLED]
    + [Cell(step, "disk-full", "No space left on device") for step in WRITES]
    + [Cell(step, "read-only", "Read-only file system") for step in READ_ONLY]
    + [Cell(step, "corrupt-download", "Hash Sum mismatch") for step in DOWNLOADS]
    + [Cell(step, "server-error", "500") for step in DOWNLOADS]
    + [Cell(step, "dns-dead", "resolve") for step in DOWNLOADS]
    + [
        Cell("packages", "lock-held", "held by process"),
        Cell("packages", "corrupt-download", "jq"),
        Cell("image-prepull", "no-network", "could not pull"),
        Cell("tls-permissions", "link", "symbolic link"),
    ]
)


@pytest.fixture(scope="module")
def ready(tree: Base, debs: list[Path]) -> Iterator[Boot]:
    with full_boot("matrix", tree, debs) as boot:
        assert boot.record.outcome is Outcome.READY, boot.record.reason
        listen(boot.machine, 8443)
        yield boot


def again(boot: Boot, *variables: str) -> RunRecord:
    boot.machine.run(["env", *variables, *AGAIN], check=False, timeout=300)
    return state(boot.machine)


def shell(boot: Boot, script: str) -> None:
    boot.machine.run(["sh", "-ec", script], timeout=120)


@contextlib.contextmanager
def shim(boot: Boot, step: str, body: str) -> Iterator[None]:
    program, pattern = COMMAND[step]
    text = f'#!/bin/sh\ncase "$*" in\n{pattern}) {body};;\nesac\nexec /usr/bin/{program} "$@"\n'
    real = boot.machine.run(["sh", "-c", f"PATH=/usr/sbin:/usr/bin command -v {program}"]).stdout.strip()
    text = text.replace(f"/usr/bin/{program}", real)
    boot.machine.run(["sh", "-ec", f"cat > {SHIMS}/{program}; chmod 755 {SHIMS}/{program}"], input=text)
    try:
        yield
    finally:
        boot.machine.run(["rm", "-f", f"{SHIMS}/{program}"])


@contextlib.contextmanager
def mounted(boot: Boot, step: str, fault: str) -> Iterator[None]:
    where = WRITES[step]
    if fault == "disk-full":
        # what is there stays there; not a byte more fits
        fill = f"cat /dev/zero > {where}/.full || cat /dev/zero >> {where}/.full || true"
        copy = f"rm -rf /run/copy; cp -a {where} /run/copy; mount -t tmpfs -o size=400M tmpfs {where}"
        shell(boot, f"mkdir -p {where}; {copy}; cp -a /run/copy/. {where}; rm -rf /run/copy; {fill} 2>/dev/null")
    else:
        shell(boot, f"mkdir -p {where}; mount --bind {where} {where}; mount -o remount,bind,ro {where}")
    try:
        yield
    finally:
        shell(boot, f"umount {where}")


@contextlib.contextmanager
def served_badly(boot: Boot, step: str, kind: str) -> Iterator[None]:
    assert boot.sources is not None
    sources = boot.sources
    files = {"nodejs-install": sources.node.path.name, "devcontainer-cli": sources.devcontainer_cli.path.name}
    if step in files:
        paths = [f"/{files[step]}"]
    else:
        pool = sources.directory / "www/apt/pool"
        paths = [f"/apt/pool/{deb.name}" for deb in pool.iterdir() if deb.name.startswith("jq_")]
        shell(boot, "rm -f /var/cache/apt/archives/jq_*")
    for path in paths:
        sources.web.fault(path, kind)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sources.web.mend()


@contextlib.contextmanager
def lock_held(boot: Boot) -> Iterator[None]:
    holder = (
        "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(600)"
    )
    run = f"systemd-run --quiet --unit=holder /usr/bin/python3 -c {shlex.quote(holder)}"
    held = 'until grep -q ":$(stat -c %i /var/lib/dpkg/lock-frontend) " /proc/locks; do sleep 0.05; done'
    shell(boot, f"{run}; {held}")
    try:
        yield
    finally:
        shell(boot, "systemctl stop holder")


@contextlib.contextmanager
def made(boot: Boot, cell: Cell) -> Iterator[tuple[str, ...]]:
    """Make the cell's fault and yield the variables to run the module with."""
    quick = (f"SAMMY_STEP_DEADLINE={DEADLINE}",)
    if cell.fault in FAULTS:
        with shim(boot, cell.step, FAULTS[cell.fault][0]):
            yield quick
    elif cell.fault in ("disk-full", "read-only"):
        with mounted(boot, cell.step, cell.fault):
            yield ()
    elif cell.fault in ("corrupt-download", "server-error"):
        with served_badly(boot, cell.step, {"corrupt-download": "wrong-bytes", "server-error": "error"}[cell.fault]):
            yield quick
    elif cell.fault == "dns-dead":
        variable = {"nodejs-install": "NODEJS", "devcontainer-cli": "DEVCONTAINER_CLI"}[cell.step]
        yield (*quick, f"SAMMY_{variable}_URLS=http://mirror.invalid/x.tar.gz")
    elif cell.fault == "lock-held":
        with lock_held(boot):
            yield quick
    elif cell.fault == "no-network":
        boot.machine.network.link("edge", up=False)
        try:
            yield quick
        finally:
            boot.machine.network.link("edge", up=True)
    else:
        shell(boot, f"mv {KEY} {KEY}.real; ln -s {KEY}.real {KEY}")
        try:
            yield ()
        finally:
            shell(boot, f"rm {KEY}; mv {KEY}.real {KEY}")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_fault_is_told_the_rest_runs_and_the_next_run_heals(cell: Cell, ready: Boot) -> None:
    image = ready.sources.image if ready.sources else ""
    shell(ready, UNDO[cell.step].format(image=image))
    try:
        meets(cell, ready)
    finally:
        healed = again(ready)
    assert (healed.outcome, healed.reason) == (Outcome.READY, "")
    assert reaches(ready.machine, "edge", 8443)
    assert not reaches(ready.machine, "stranger", 8443)


def meets(cell: Cell, ready: Boot) -> None:
    with made(ready, cell) as variables:
        record = again(ready, *variables)
        step = record.step(cell.step)
        assert step.status is Status.FAILED, f"{step} in {record}"
        assert cell.words in step.reason
        assert record.outcome is (Outcome.FAILED if step.required else Outcome.DEGRADED), record.reason
        needing = {"docker": {"image-prepull", "docker-restart"}, "nodejs-install": {"devcontainer-cli"}}
        rest = [one for one in record.steps if one.status is Status.FAILED and one.name != cell.step]
        allowed = needing.get(cell.step, set()) | ({"agent-install"} if cell.step == "firewall" else set())
        assert {one.name for one in rest} <= allowed, record.reason
        assert cell.step in ready.machine.run(["sammy", "status"], check=False).stdout
        assert reaches(ready.machine, "machine", 8443)
        assert cell.fault == "no-network" or reaches(ready.machine, "edge", 8443)


def test_no_step_is_left_out() -> None:
    assert {cell.step for cell in CELLS} == set(STEPS)
