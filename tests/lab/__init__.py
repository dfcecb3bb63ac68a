# SPDX-License-Identifier: Apache-2.0
"""The machine laboratory: real Debian machines in seconds, with surroundings, download sources and a power switch.

    tree = debian("bookworm")
    with Network("demo") as network, Sources(network, tree, debs) as sources:
        user_data = {"sammy": sources.user_config()}
        with Machine("demo", tree, user_data, extra_debs=debs, network=network) as machine:
            machine.start()
            print(machine.wait_cloud_init().status)

It knows nothing of pytest: tests make fixtures of it, the demo boots with it. Try it: `python3 -m tests.lab` as root.
What it keeps lies under build/lab; what it makes elsewhere (namespaces, mounts, cgroups) is named
sammylab-<process id>-..., and cleanup() or close() takes it away; after a SIGKILL the next run does.
Needs the packages mmdebstrap systemd-container iproute2 dpkg-dev apt-utils gpg docker-registry npm.
"""

from __future__ import annotations

from tests.lab.base import Base, debian
from tests.lab.machine import CloudInit, Machine
from tests.lab.network import Network
from tests.lab.shell import LabError
from tests.lab.sources import Sources

__all__ = ["Base", "CloudInit", "LabError", "Machine", "Network", "Sources", "debian"]
