# SPDX-License-Identifier: Apache-2.0
"""sammy-agent: its package from where the configuration says, its configuration, its unit running."""

from __future__ import annotations

import json
import os

from cc_sammy.common import files
from cc_sammy.config import Config, given
from cc_sammy.contract import paths
from cc_sammy.contract.agent_config import AgentConfigFile
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import apt, systemd

PACKAGE = "sammy-agent"
UNIT = "sammy-agent.service"
FETCHED = "/var/cache/apt/archives/sammy-agent-fetched.deb"


def packages(config: Config) -> list[str]:
    """Return what can be part of the one apt transaction; the package itself neither enables nor starts anything."""
    return [PACKAGE] if config.agent.source == "apt" else []


def agent_config(config: Config) -> str:
    """Return what the agent reads at its start; the token stays in its own file."""
    plane = config.control_plane
    file = AgentConfigFile(
        config.node_id, plane.url, plane.token_file, plane.ca_file, config.agent.port, config.agent.debug_push
    )
    return json.dumps(file._asdict(), indent=2) + "\n"


def already_done(host: Host, config: Config) -> str | None:
    """The agent is installed, configured as wanted, and runs."""
    if config.agent.source == "none":
        return "agent.source is none"
    if files.read_text(paths.AGENT_CONFIG) != agent_config(config) or apt.missing(host, [PACKAGE]):
        return None
    return "sammy-agent runs and is configured as wanted" if systemd.is_enabled_and_active(host, UNIT) else None


def require_token(config: Config) -> None:
    """Fail, with the key's name, when the token's file is missing or readable by others."""
    path = config.control_plane.token_file
    if path is None:
        return
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError as error:
        raise StepFailed(
            f"sammy.control_plane.token_file is {path}: {error.strerror}",
            "Write the node's token there with mode 0600 (write_files in the user-data)",
        ) from error
    if mode & 0o077:
        os.chmod(path, 0o600)


def run(host: Host, config: Config) -> None:
    """Install the package if need be, write the configuration, enable and start the unit."""
    require_token(config)
    if apt.missing(host, [PACKAGE]):
        _install(host, config)
    changed = files.write_text(paths.AGENT_CONFIG, agent_config(config))
    if changed and systemd.unit_properties(host, UNIT).get("ActiveState") == "active":
        host.run(["systemctl", "restart", "--no-block", UNIT])
    systemd.enable_and_start(host, UNIT, seconds=60)


def _install(host: Host, config: Config) -> None:
    source = config.agent.source
    if source == "installed":
        raise StepFailed(
            'sammy-agent is not installed and agent.source is "installed"',
            "Use an image that has it, or agent.source deb, url or apt",
        )
    if source == "url":
        apt.download(host, [given(config.agent.url)], FETCHED, f"SHA256:{config.agent.sha256}")
        try:
            apt.install(host, [FETCHED])
        finally:
            files.remove(FETCHED)
    elif source == "deb":
        deb = given(config.agent.deb)
        if not os.path.exists(deb):
            raise StepFailed(f"sammy.agent.deb is {deb}: no such file", "Put the package there")
        apt.install(host, [deb])
    else:
        stale = config.agent.apt is not None and apt.Repository.from_config(config.agent.apt).write()
        apt.install(host, [PACKAGE], lists_stale=stale)


def verify(host: Host, config: Config) -> bool:
    """Installed, configured, and its unit, which `run` has seen active, is still managed by systemd."""
    if files.read_text(paths.AGENT_CONFIG) != agent_config(config) or apt.missing(host, [PACKAGE]):
        return False
    state = systemd.unit_properties(host, UNIT)
    return state.get("ActiveState") in ("active", "activating") and state.get("UnitFileState") in ("enabled", "static")


STEP = Step(
    "agent-install",
    "agent",
    already_done,
    run,
    needs=("firewall",),
    after=("packages", "tls-permissions"),
    exclusive_resources=frozenset({"apt"}),
    verify=verify,
    retries=2,
)
