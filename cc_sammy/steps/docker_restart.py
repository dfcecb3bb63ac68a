# SPDX-License-Identifier: Apache-2.0
"""Docker restarted only if something it read at its start has changed since, and never under containers."""

from __future__ import annotations

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.steps.docker import RESTART_NEEDED, UNIT
from cc_sammy.system import docker_api as engine
from cc_sammy.system import systemd


def already_done(host: Host, config: Config) -> str | None:
    """Docker has read its current configuration, or must not be restarted."""
    policy = config.docker_restart.policy
    if policy == "never" or config.docker.source == "none":
        return "docker_restart.policy is never" if policy == "never" else "docker.source is none"
    if policy == "always":
        return None
    stale = files.read_text(RESTART_NEEDED)
    if stale is None or systemd.unit_properties(host, UNIT).get("InvocationID") != stale.strip():
        return "Docker started with the current configuration"
    try:
        count = engine.running_containers()
    except OSError:
        return None
    if count:
        return f"{count} containers run; the new configuration takes effect at Docker's next start"
    return None


def run(host: Host, config: Config) -> None:
    """Restart Docker and wait for its socket."""
    host.run(["systemctl", "restart", "--no-block", UNIT])
    before = files.read_text(RESTART_NEEDED)
    end = host.boottime() + 60
    while before is not None and systemd.unit_properties(host, UNIT).get("InvocationID") == before.strip():
        if host.boottime() > end:
            raise StepFailed("Docker did not restart within 60 s", "Look at systemctl status docker")
        host.sleep(0.05)
    systemd.wait_active(host, UNIT, 120)
    engine.wait(host)
    files.remove(RESTART_NEEDED)


def verify(host: Host, config: Config) -> bool:
    """Docker answers, and no restart is marked as needed."""
    return engine.answers() and files.read_text(RESTART_NEEDED) is None


STEP = Step(
    "docker-restart",
    "docker_restart",
    already_done,
    run,
    needs=("docker",),
    exclusive_resources=frozenset({"docker-daemon"}),
    changes_network=True,
    verify=verify,
)
