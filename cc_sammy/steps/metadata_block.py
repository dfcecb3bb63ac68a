# SPDX-License-Identifier: Apache-2.0
"""The cloud's metadata service closed to containers and users: it may hold the user-data, with its secrets."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.firewall import metadata_table
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step

# Host-network containers pass no forward chain: they run in this slice (cgroup-parent in daemon.json).
SLICE = "sammy-containers.slice"
DROP_IN = f"/etc/systemd/system/{SLICE}.d/60-metadata.conf"


def drop_in(config: Config) -> str:
    """Return the slice's drop-in."""
    denied = "".join(f"IPAddressDeny={address}\n" for address in config.metadata_block.addresses)
    return (
        f"# Written by cloud-init-sammy; sammy.metadata_block.addresses changes it.\n[Slice]\nIPAddressDeny=\n{denied}"
    )


def already_done(host: Host, config: Config) -> str | None:
    """The block is active, or not wanted."""
    options = config.metadata_block
    if not options.enabled:
        is_there = os.path.exists(metadata_table.BOOT_FILE) or os.path.exists(DROP_IN)
        return None if is_there else "metadata_block.enabled is false"
    in_force = metadata_table.is_in_force(host, options.addresses, options.host_processes)
    return "the block is active" if in_force and files.read_text(DROP_IN) == drop_in(config) else None


def run(host: Host, config: Config) -> None:
    """Load the rules and deny the addresses in the containers' slice, or remove both."""
    options = config.metadata_block
    if not options.enabled:
        metadata_table.remove(host)
        if files.remove(DROP_IN):
            _reload_slice(host, ())
        return
    metadata_table.apply(host, options.addresses, options.host_processes)
    if files.write_text(DROP_IN, drop_in(config)):
        _reload_slice(host, options.addresses)


def _reload_slice(host: Host, denied: Sequence[str]) -> None:
    """Make systemd deny these addresses: it reads the drop-in by itself as long as no container is in the slice.

    A daemon-reload would cost 0.12 s of a first boot, in which systemd does not respond.
    """
    answer = host.run(["systemctl", "show", SLICE, "--property=IPAddressDeny", "--value"], check=False, quiet=True)
    if set(answer.stdout.split()) != {str(ipaddress.ip_network(address)) for address in denied}:
        host.run(["systemctl", "daemon-reload"])


STEP = Step("metadata-block", "metadata_block", already_done, run, after=("firewall", "docker-restart"))
