# SPDX-License-Identifier: Apache-2.0
"""Docker Engine: installed, configured before its first start, enabled, answering, usable by the agents' user."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import apt, systemd
from cc_sammy.system import docker_api as engine

UNIT = "docker.service"
DAEMON_JSON = "/etc/docker/daemon.json"
# The keys in it that we manage, so that an option that is unset takes its key with it.
WRITTEN = "/var/lib/sammy/daemon-keys.json"
# Holds the invocation id of a dockerd that has not read the current daemon.json; gone after a reboot, as the need is.
RESTART_NEEDED = "/run/sammy/docker-restart-needed"
SLICE = "sammy-containers.slice"


def is_in_image(host: Host) -> bool:
    """Return whether dockerd is installed and set up; half unpacked, it is not."""
    return host.which("dockerd") is not None and not apt.interrupted()


def packages(config: Config) -> list[str]:
    """Return the packages of the configured source."""
    return {"distro": ["docker.io"], "docker-ce": ["docker-ce", "docker-ce-cli", "containerd.io"]}.get(
        config.docker.source, []
    )


def managed_keys(config: Config) -> dict[str, Any]:
    """Return the keys of daemon.json that we manage: those of the options, overridden by docker.daemon."""
    options = config.docker
    keys: dict[str, Any] = {"log-driver": "journald", "live-restore": options.live_restore}
    if config.metadata_block.enabled:
        keys["cgroup-parent"] = SLICE
    if options.log_tag:
        keys["log-opts"] = {"tag": options.log_tag}
    for key, addresses in (("dns", options.dns), ("registry-mirrors", options.registry_mirrors)):
        if addresses:
            keys[key] = addresses
    if options.address_pools:
        pools = (pool.rpartition(":") for pool in options.address_pools)
        keys["default-address-pools"] = [{"base": base, "size": int(size)} for base, _, size in pools]
    return {**keys, **options.daemon}


def daemon_json(current: str | None, config: Config, written: str | None = None) -> str:
    """Return daemon.json: its current keys, overridden by the managed ones.

    :param written: the previous `managed_keys_json`; of those keys, the ones no longer wanted are removed.
    """
    try:
        keys: dict[str, Any] = json.loads(current or "{}")
    except ValueError as error:
        raise StepFailed(f"{DAEMON_JSON} is not JSON ({error})", "Fix or remove it, then run again") from error
    for key, value in _previous_managed_keys(written).items():
        if keys.get(key) == value:  # otherwise somebody has changed it since
            del keys[key]
    return json.dumps({**keys, **managed_keys(config)}, indent=2, sort_keys=True) + "\n"


def managed_keys_json(config: Config) -> str:
    """Return the managed keys as they are stored for the next run."""
    return json.dumps(managed_keys(config), indent=2, sort_keys=True) + "\n"


def _previous_managed_keys(written: str | None) -> dict[str, Any]:
    try:
        noted = json.loads(written or "{}")
    except ValueError:
        return {}  # truncated by a power cut: remove nothing that might be somebody's
    return noted if isinstance(noted, dict) else {}


def _is_configured(config: Config) -> bool:
    current, written = files.read_text(DAEMON_JSON), files.read_text(WRITTEN)
    return (
        written == managed_keys_json(config)
        and current is not None
        and current == daemon_json(current, config, written)
    )


def write_daemon_json(host: Host, config: Config) -> None:
    """Write daemon.json and the managed keys; mark a restart as needed when a running dockerd has not read it."""
    if config.docker.source == "none":
        return
    current = files.read_text(DAEMON_JSON)
    text = daemon_json(current, config, files.read_text(WRITTEN))
    if current != text:
        state = systemd.unit_properties(host, UNIT)
        if state.get("ActiveState") == "active":
            files.write_text(RESTART_NEEDED, state.get("InvocationID", "unknown") + "\n")
        files.write_text(DAEMON_JSON, text)
    files.write_text(WRITTEN, managed_keys_json(config))


def users_missing_from_group(config: Config) -> list[str]:
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


def already_done(host: Host, config: Config) -> str | None:
    """Docker runs, is enabled, and has our daemon.json."""
    if config.docker.source == "none":
        return "docker.source is none"
    if not _is_configured(config) or users_missing_from_group(config):
        return None
    if systemd.is_enabled_and_active(host, UNIT) and engine.answers():
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
    for user in users_missing_from_group(config):
        host.run(["usermod", "--append", "--groups", "docker", user])
    systemd.enable_and_start(host, UNIT, seconds=120)
    engine.wait(host)


STEP = Step(
    "docker",
    "docker",
    already_done,
    run,
    after=("firewall", "packages"),
    exclusive_resources=frozenset({"apt", "docker-daemon"}),
    changes_network=True,
    retries=1,
)
# With dockerd in the image nothing of apt is waited for: containers can be pulled while packages are unpacked.
STEP_IN_IMAGE = replace(STEP, after=("firewall",), exclusive_resources=frozenset({"docker-daemon"}))
