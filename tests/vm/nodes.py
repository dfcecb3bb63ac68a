# SPDX-License-Identifier: Apache-2.0
"""Machines that are nodes of the embedded control plane, which runs beside them as a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import Base, LabError, Machine, Network, Sources
from tests.lab.control_plane import ControlPlane, control_plane
from tests.lab.network import ALLOWED
from tests.lab.shell import run, wait_until
from tests.vm.boots import BARE

NODE = "node-7"


@dataclass
class Node:
    """A machine, the control plane it is a node of, and where its packages come from."""

    machine: Machine
    plane: ControlPlane
    sources: Sources
    options: dict[str, Any]
    name: str = NODE

    @property
    def seen(self) -> dict[str, Any]:
        """The node as the control plane shows it."""
        return self.plane.node(self.name)

    @property
    def running_and_healthy(self) -> bool:
        """Whether the control plane calls it so."""
        seen = self.seen
        return (seen.get("status"), seen.get("healthStatus")) == ("running", "healthy")

    def become(self, name: str) -> None:
        """Make the disk, the machine being off, an image's: the next boot is the first of another node."""
        run(["chroot", self.machine.root, "cloud-init", "clean", "--logs", "--machine-id"])
        for used in ("etc/sammy", "var/lib/sammy", "var/log/journal"):
            for path in (self.machine.root / used).glob("*"):
                run(["rm", "-rf", "--one-file-system", path])
        self.name = name
        self.machine.seed(self.plane.user_data(name, self.options, None), instance_id=f"lab-{name}")

    def wait(self, what: str, condition: Any, seconds: float = 180.0) -> None:
        """Wait for a condition of the node as the control plane shows it."""
        try:
            wait_until(lambda: bool(condition(self.seen)), f"{self.name}: {what}", seconds)
        except LabError as error:
            raise LabError(f"{error.problem.text}; it is {self.seen}") from error


@contextlib.contextmanager
def node(name: str, tree: Base, debs: list[Path], *, full: bool = False, **sammy: Any) -> Iterator[Node]:
    """Yield a node that is not powered on yet.

    The `sammy:` key has nothing but the agent, or with `full` work for every step, and what is given.
    """
    image = [deb for deb in debs if not deb.name.startswith("sammy-agent")]
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(name))
        sources = stack.enter_context(
            Sources(network, tree, debs=debs) if full else Sources(network, tree, debs=debs, packages=())
        )
        plane = stack.enter_context(control_plane(network, sources.directory))
        bare = {**BARE, "agent": {"source": "apt"}, "packages": {"install": [], "apt": sources.apt}}
        options = {**(sources.user_config() if full else bare), "firewall": {"allow": list(ALLOWED)}, **sammy}
        machine = Machine(name, tree, plane.user_data(NODE, options, None), extra_debs=image, network=network)
        yield Node(stack.enter_context(machine), plane, sources, options)
