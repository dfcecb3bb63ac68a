# SPDX-License-Identifier: Apache-2.0
"""Tries the laboratory: boots a machine, cuts its power, boots it again; with --docker installs and uses Docker in it.

Prints what each took and fails when anything is wrong or left on the host.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.lab import LabError, Machine, Network, Sources, debian, leftovers
from tests.lab.network import MACHINE4, MACHINE6, MACHINE_FOR_STRANGER4, MACHINE_FOR_STRANGER6
from tests.lab.shell import wait_until
from tests.lab.web import FAULTS

T = TypeVar("T")


def timed(what: str, function: Callable[[], T]) -> T:
    """Call a function and print the seconds it took."""
    before = time.monotonic()
    result = function()
    print(f"{time.monotonic() - before:7.2f} s  {what}", flush=True)
    return result


def require(true: bool, what: str) -> None:
    """Fail with a sentence."""
    if not true:
        raise LabError(what)


def check_boot(machine: Machine, what: str) -> None:
    """Boot and hold the machine to what a healthy one looks like."""
    timed(f"{what}: PID 1 runs", machine.start)
    done = timed(f"{what}: cloud-init has ended", machine.wait_cloud_init)
    require(done.status == "done" and done.returncode == 0, f"cloud-init: {done}")
    running = machine.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
    failed = machine.run(["systemctl", "--failed", "--no-legend"]).stdout
    require(running == "running" and not failed, f"systemd is {running}; failed units: {failed}")


def power(suite: str) -> None:
    """Boot, power off, boot, cut the power, boot: the disk stays, the journal can be read at each point."""
    tree = timed(f"the {suite} tree", lambda: debian(suite))
    with Machine("power", tree, {"runcmd": ["echo ran >> /var/lib/ran"]}) as machine:
        check_boot(machine, "first boot")
        require(machine.read("/var/lib/ran") == "ran\n", "runcmd did not run")
        check_wires(machine)
        marker = machine.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip().replace("-", "")
        machine.run(["systemd-cat", "--identifier=lab", "echo", "before the cut"])
        timed("power off", machine.poweroff)
        require(len(machine.journal("-t", "lab")) == 1, "the journal of a machine that is off has not its entry")
        check_boot(machine, "second boot")
        require(machine.read("/var/lib/ran") == "ran\n", "runcmd ran again")
        timed("power cut", machine.kill)
        check_boot(machine, "boot after the cut")
        require(len(machine.journal("-t", "lab")) == 1, "the journal has lost its entry")
        print(f"           boot_id of the first boot {marker}, {len(machine.journal())} journal entries of three boots")


WIRES = (
    ("edge", MACHINE4),
    ("edge", MACHINE6),
    ("stranger", MACHINE_FOR_STRANGER4),
    ("stranger", MACHINE_FOR_STRANGER6),
)


def check_wires(machine: Machine) -> None:
    """Reach the machine from both sides by IPv4 and IPv6, not over a cut wire, and again over the mended one."""

    def reached(role: str, address: str) -> bool:
        def knock() -> bool:
            try:
                socket.create_connection((address, 9), timeout=0.5).close()
            except ConnectionRefusedError:  # nothing listens there: the machine itself says so
                return True
            except OSError:
                return False
            return True

        return machine.network.call(role, knock)

    def all_reached() -> bool:
        return all(reached(role, address) for role, address in WIRES)

    wait_until(all_reached, "edge and stranger reach the machine", 10)
    machine.network.link("edge", up=False)
    require([reached(role, address) for role, address in WIRES] == [False, False, True, True], "the wire is not cut")
    machine.network.link("edge", up=True)
    timed("a mended wire carries again", lambda: wait_until(all_reached, "the mended wire carries", 30))


def docker(suite: str) -> None:
    """Install Docker from the sources by hand, pull and run the image; see every fault of the web server."""
    tree = debian(suite)
    with Network("docker") as network, timed("sources", lambda: Sources(network, tree)) as sources:
        about = sources.apt
        entry = f"deb [signed-by=/etc/apt/keyrings/lab.asc] {about['uri']} {about['suite']} main\n"
        files = {
            "/etc/docker/daemon.json": json.dumps(sources.daemon),
            "/etc/apt/keyrings/lab.asc": about["key"],
            "/etc/apt/sources.list.d/lab.list": entry,
        }
        with Machine("docker", tree, {}, network=network, files=files) as machine:
            check_boot(machine, "boot")
            update = timed("apt-get update", lambda: machine.run(["apt-get", "update"])).stdout
            hosts = {word for line in update.splitlines() for word in line.split() if word.startswith("http")}
            require(hosts == {about["uri"]}, f"apt asked {hosts}")
            names = ["docker.io"] if suite == "bookworm" else ["docker.io", "docker-cli"]
            install = ["apt-get", "install", "-y", "--no-install-recommends", *names]
            timed("apt-get install docker.io", lambda: machine.run(install, timeout=300))
            timed("docker pull", lambda: machine.run(["docker", "pull", sources.image]))
            said = timed("docker run", lambda: machine.run(["docker", "run", "--rm", sources.image, "id"])).stdout
            require(said.startswith("uid=0"), f"the container said {said!r}")
            check_faults(machine, sources)
            require(not machine.run(["systemctl", "--failed", "--no-legend"]).stdout, "units failed")
            timed("power cut with Docker", machine.kill)
            check_boot(machine, "boot after the cut")
            timed("docker run", lambda: machine.run(["docker", "run", "--rm", sources.image, "true"]))
            timed("power off", machine.poweroff)


def check_faults(machine: Machine, sources: Sources) -> None:
    """A checked download succeeds, fails under every fault, and succeeds again."""
    path = f"/{sources.node.path.name}"
    fetch = ["/usr/lib/apt/apt-helper", "-o", "Acquire::http::Timeout=1", "-o", "Acquire::Retries=0", "download-file",
             sources.url(path), "/var/tmp/node", f"SHA256:{sources.node.checksum}"]  # fmt: skip
    for kind in (None, *FAULTS, None):
        sources.web.fault(path, kind)
        status = machine.run(fetch, check=False, timeout=120).returncode
        require((status == 0) == (kind is None), f"a download under {kind} ended with {status}")
        machine.run(["rm", "-f", "/var/tmp/node"])
    print(f"           downloads fail under {', '.join(FAULTS)} and succeed without")


def main() -> int:
    """Run what was asked for; status 1 with a sentence when it fails."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab", description=__doc__)
    parser.add_argument("--suite", default="bookworm", choices=["bookworm", "trixie"])
    parser.add_argument("--docker", action="store_true", help="also install and use Docker")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the laboratory needs root: run it with sudo", file=sys.stderr)
        return 1
    try:
        timed("all of power", lambda: power(options.suite))
        if options.docker:
            timed("all of docker", lambda: docker(options.suite))
        left = leftovers.found(os.getpid())
        require(not left, f"left on the host: {'; '.join(left)}")
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print("nothing is left on the host" + ("" if Path("/run/systemd/system").exists() else " (which has no systemd)"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
