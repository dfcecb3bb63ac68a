# SPDX-License-Identifier: Apache-2.0
"""The cloud's metadata service closed to containers and users: it may hold the user-data, with its secrets."""

from __future__ import annotations

from cc_sammy.config import Config
from cc_sammy.firewall import metadata
from cc_sammy.host import Host
from cc_sammy.plan import Step

# Host-network containers pass no forward chain: they run in this slice (cgroup-parent in daemon.json).
DROP_IN = "/etc/systemd/system/sammy-containers.slice.d/60-metadata.conf"


def drop_in(config: Config) -> str:
    """Return the slice's drop-in."""
    denied = "".join(f"IPAddressDeny={address}\n" for address in config.metadata_block.addresses)
    return (
        f"# Written by cloud-init-sammy; sammy.metadata_block.addresses changes it.\n[Slice]\nIPAddressDeny=\n{denied}"
    )


def satisfied(host: Host, config: Config) -> str | None:
    """The block is in force, or not wanted."""
    options = config.metadata_block
    if not options.enabled:
        is_there = host.exists(metadata.KEPT) or host.exists(DROP_IN)
        return None if is_there else "metadata_block.enabled is false"
    in_force = metadata.metadata_in_force(host, tuple(options.addresses), options.host_processes)
    return "the block is in force" if in_force and host.read_text(DROP_IN) == drop_in(config) else None


def run(host: Host, config: Config) -> None:
    """Load the rules and give the containers' slice its denied addresses, or take both away."""
    options = config.metadata_block
    if not options.enabled:
        metadata.remove_metadata(host)
        if host.remove(DROP_IN):
            host.run(["systemctl", "daemon-reload"])
        return
    metadata.apply_metadata(host, tuple(options.addresses), options.host_processes)
    if host.write_text(DROP_IN, drop_in(config)):
        host.run(["systemctl", "daemon-reload"])


STEP = Step("metadata-block", "metadata_block", satisfied, run, after=("firewall", "docker-restart"))
