# SPDX-License-Identifier: Apache-2.0
"""What the tests do with machines: boot one fully, read what sammy says of it, knock at its ports."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cc_sammy.contract import paths
from cc_sammy.contract.run_record import RunRecord
from cc_sammy.steps import declared
from tests.lab import Base, CloudInit, Machine, Network, Sources
from tests.lab.network import ALLOWED, MACHINE4, MACHINE_FOR_STRANGER4
from tests.lab.shell import wait_until

TOP = Path(__file__).parents[2]
KEY = "/etc/sammy/tls/node.key"
AGENT_PORT = 8443
STEPS = tuple(step.name for step in declared())
OTHERS_WORK = ("apt", "dpkg", "docker", "tar")  # what they cost is not ours
AGAIN = ["cloud-init", "single", "--name", "sammy", "--frequency", "always"]
# What a boot needs of nothing outside the machine; a test of one fault adds only its fault.
BARE: dict[str, Any] = {
    "agent": {"source": "none"},
    "docker": {"source": "none"},
    "nodejs": {"source": "none"},
    "devcontainer_cli": {"source": "none"},
    "packages": {"install": []},
    "firewall": {"allow": list(ALLOWED)},
}
# What makes a node degraded: an optional step that cannot have what it needs.
NO_NODEJS = (
    "SAMMY_NODEJS_SOURCE=archive\nSAMMY_NODEJS_VERSION=1.0.0\nSAMMY_NODEJS_URLS=http://127.0.0.1:9/x\n"
    f"SAMMY_NODEJS_SHA256={'0' * 64}\n"
)


def built() -> list[Path]:
    """Build our packages, if their inputs changed, and return them."""
    subprocess.run([TOP / "packaging/build-deb"], check=True, cwd=TOP, stdout=subprocess.DEVNULL)
    return sorted((TOP / "build/deb").glob("*.deb"))


@dataclass
class Boot:
    """A machine that has booted, and how cloud-init saw it."""

    machine: Machine
    sources: Sources | None
    ended: CloudInit

    @property
    def record(self) -> RunRecord:
        """The state file."""
        return state(self.machine)


def state(machine: Machine) -> RunRecord:
    """Return the machine's state file."""
    return RunRecord.from_json(machine.read(paths.STATE))


def user_data(sammy: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a `#cloud-config` with a `sammy:` key."""
    return {"sammy": sammy, **more}


def full_config(sources: Sources) -> dict[str, Any]:
    """Return the user-data of a boot in which every step has work to do."""
    sammy = sources.user_config()
    sammy["node_id"] = "node-7"
    sammy["firewall"] = {"allow": list(ALLOWED)}
    key = {"path": KEY, "content": "a private key\n", "permissions": "0644"}
    return user_data(sammy, users=[{"name": "workspace", "shell": "/bin/bash"}], write_files=[key])


@contextlib.contextmanager
def full_machine(name: str, tree: Base, debs: list[Path]) -> Iterator[tuple[Machine, Sources]]:
    """Yield a machine, not yet powered on, with our module in its image, and the sources it will ask."""
    image = [deb for deb in debs if not deb.name.startswith("sammy-agent")]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(name))
        sources = stack.enter_context(Sources(network, tree, debs=debs))
        machine = Machine(name, tree, full_config(sources), extra_debs=image, network=network)
        yield stack.enter_context(machine), sources


@contextlib.contextmanager
def full_boot(name: str, tree: Base, debs: list[Path]) -> Iterator[Boot]:
    """Yield a machine after its first full boot."""
    with full_machine(name, tree, debs) as (machine, sources):
        machine.start()
        yield Boot(machine, sources, machine.wait_cloud_init(600))


@contextlib.contextmanager
def bare_boot(name: str, tree: Base, debs: list[Path], sammy: dict[str, Any], **more: Any) -> Iterator[Boot]:
    """Yield a machine after a boot with the given `sammy:` key, its image having our module."""
    image = [deb for deb in debs if not deb.name.startswith("sammy-agent")]
    with Machine(name, tree, user_data(sammy, **more), extra_debs=image) as machine:
        machine.start()
        yield Boot(machine, None, machine.wait_cloud_init(300))


def listen(machine: Machine, port: int) -> None:
    """Have something answer on a port of the machine, all addresses."""
    unit = f"listener-{port}"
    program = f"import socket; s = socket.create_server(('', {port})); [s.accept()[0].close() for _ in iter(int, 1)]"
    machine.run(["systemd-run", "--quiet", f"--unit={unit}", "/usr/bin/python3", "-c", program])
    wait_until(lambda: reaches(machine, "machine", port), f"{unit} listens", 30)


def reaches(machine: Machine, role: str, port: int) -> bool:
    """Tell whether the machine's port takes a connection from `edge`, `stranger` or the `machine` itself."""
    address = {"edge": MACHINE4, "stranger": MACHINE_FOR_STRANGER4, "machine": "127.0.0.1"}[role]

    def knock() -> bool:
        try:
            with socket.create_connection((address, port), timeout=2):
                return True
        except OSError:
            return False

    return machine.network.call(role, knock)
