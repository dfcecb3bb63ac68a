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
# Our keys in it, so that an option that is taken back takes its key with it.
WRITTEN = "/var/lib/sammy/daemon-keys.json"
# Says which invocation of dockerd has not read the present daemon.json; gone with the boot, as the need is.
RESTART_NEEDED = "/run/sammy/docker-restart-needed"
SLICE = "sammy-containers.slice"


def is_in_image(host: Host) -> bool:
    """Tell whether dockerd is there and set up; half unpacked, it is not."""
    return host.which("dockerd") is not None and not apt.interrupted()


def packages(config: Config) -> list[str]:
    """Return the packages that the configured source is made of."""
    return {"distro": ["docker.io"], "docker-ce": ["docker-ce", "docker-ce-cli", "containerd.io"]}.get(
        config.docker.source, []
    )


def our_keys(config: Config) -> dict[str, Any]:
    """Return the keys of daemon.json that are ours: what the options make, over it docker.daemon."""
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
    """Return daemon.json: what stands there, over it our keys.

    :param written: our keys of the last time, as `note` made them: what is no longer wanted goes with its option.
    """
    try:
        keys: dict[str, Any] = json.loads(current or "{}")
    except ValueError as error:
        raise StepFailed(f"{DAEMON_JSON} is not JSON ({error})", "Mend or remove it, then run again") from error
    for key, value in _noted(written).items():
        if keys.get(key) == value:  # else somebody has made it theirs
            del keys[key]
    return json.dumps({**keys, **our_keys(config)}, indent=2, sort_keys=True) + "\n"


def note(config: Config) -> str:
    """Return what is kept of our keys for the next time."""
    return json.dumps(our_keys(config), indent=2, sort_keys=True) + "\n"


def _noted(written: str | None) -> dict[str, Any]:
    try:
        noted = json.loads(written or "{}")
    except ValueError:
        return {}  # cut short by a power cut: nothing is taken away that might be somebody's
    return noted if isinstance(noted, dict) else {}


def _is_configured(config: Config) -> bool:
    current, written = files.read_text(DAEMON_JSON), files.read_text(WRITTEN)
    return written == note(config) and current is not None and current == daemon_json(current, config, written)


def write_daemon_json(host: Host, config: Config) -> None:
    """Write daemon.json, then the note of our keys in it; note too when a dockerd that runs has not read it."""
    if config.docker.source == "none":
        return
    current = files.read_text(DAEMON_JSON)
    text = daemon_json(current, config, files.read_text(WRITTEN))
    if current != text:
        state = systemd.show(host, UNIT)
        if state.get("ActiveState") == "active":
            files.write_text(RESTART_NEEDED, state.get("InvocationID", "unknown") + "\n")
        files.write_text(DAEMON_JSON, text)
    files.write_text(WRITTEN, note(config))


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
    if not _is_configured(config) or lacking_users(config):
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
    for user in lacking_users(config):
        host.run(["usermod", "--append", "--groups", "docker", user])
    systemd.enable_and_start(host, UNIT, seconds=120)
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
