# SPDX-License-Identifier: Apache-2.0
"""Docker Engine: installed, configured before its first start, enabled, answering, usable by the agents' user."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cc_sammy import apt, units
from cc_sammy import docker as engine
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host import Host
from cc_sammy.plan import Step

UNIT = "docker.service"
DAEMON_JSON = "/etc/docker/daemon.json"
# Says which invocation of dockerd has not read the present daemon.json; gone with the boot, as the need is.
RESTART_NEEDED = "/run/sammy/docker-restart-needed"
SLICE = "sammy-containers.slice"


def is_in_image(host: Host) -> bool:
    """Tell whether dockerd is there and set up; half unpacked, it is not."""
    return host.which("dockerd") is not None and not apt.interrupted(host)


def packages(config: Config) -> list[str]:
    """Return the packages that the configured source is made of."""
    return {"distro": ["docker.io"], "docker-ce": ["docker-ce", "docker-ce-cli", "containerd.io"]}.get(
        config.docker.source, []
    )


def daemon_json(current: str | None, config: Config) -> str:
    """Return daemon.json: what stands there, over it our keys, over them the configuration's."""
    try:
        keys: dict[str, Any] = json.loads(current or "{}")
    except ValueError as error:
        raise StepFailed(f"{DAEMON_JSON} is not JSON ({error})", "Mend or remove it, then run again") from error
    keys.update({"log-driver": "journald", "live-restore": True})
    if config.metadata_block.enabled:
        keys["cgroup-parent"] = SLICE
    keys.update(config.docker.daemon)
    return json.dumps(keys, indent=2, sort_keys=True) + "\n"


def write_daemon_json(host: Host, config: Config) -> None:
    """Write daemon.json; note when a dockerd that runs has not read it."""
    if config.docker.source == "none":
        return
    text = daemon_json(host.read_text(DAEMON_JSON), config)
    if host.read_text(DAEMON_JSON) == text:
        return
    state = units.show(host, UNIT)
    if state.get("ActiveState") == "active":
        host.write_text(RESTART_NEEDED, state.get("InvocationID", "unknown") + "\n")
    host.write_text(DAEMON_JSON, text)


def lacking_users(config: Config) -> list[str]:
    """Return the configured users that exist and are not in the group docker."""
    import grp
    import pwd

    existing = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    try:
        group = grp.getgrnam("docker")
    except KeyError:
        return [user for user in config.docker.users if user in existing]
    return [
        user for user in config.docker.users
        if user in existing and user not in group.gr_mem and existing[user] != group.gr_gid
    ]  # fmt: skip


def satisfied(host: Host, config: Config) -> str | None:
    """Docker runs, will at the next boot, and reads our daemon.json."""
    if config.docker.source == "none":
        return "docker.source is none"
    current = host.read_text(DAEMON_JSON)
    if current is None or current != daemon_json(current, config) or lacking_users(config):
        return None
    if units.is_enabled_and_active(host, UNIT) and engine.answers():
        return "Docker runs, is enabled and configured"
    return None


def run(host: Host, config: Config) -> None:
    """Install Docker if need be, write daemon.json before the first start, enable, start, wait for its socket."""
    write_daemon_json(host, config)
    absent = [] if is_in_image(host) else apt.missing(host, packages(config))
    if absent:
        apt.install(host, absent)
    if host.which("dockerd") is None:
        raise StepFailed(
            f'there is no dockerd on this machine and docker.source is "{config.docker.source}"',
            "Use docker.source distro or docker-ce, or an image that has Docker",
        )
    for user in lacking_users(config):
        host.run(["usermod", "--append", "--groups", "docker", user])
    units.enable_and_start(host, UNIT, seconds=120)
    engine.wait(host)


STEP = Step(
    "docker",
    "docker",
    satisfied,
    run,
    after=("firewall", "packages"),
    uses=frozenset({"apt", "docker-daemon"}),
    changes_network=True,
    retries=1,
)
# With dockerd in the image nothing of apt is waited for: containers can be pulled while packages are unpacked.
STEP_IN_IMAGE = replace(STEP, after=("firewall",), uses=frozenset({"docker-daemon"}))
