# SPDX-License-Identifier: Apache-2.0
"""One apt transaction for everything that all steps need: each further one would cost its own seconds."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps import agent_install, docker, nodejs_install
from cc_sammy.steps.base import Step
from cc_sammy.system import apt, apt_mirror, systemd

# They would take dpkg's lock in the middle; --runtime, so that a power cut restores them.
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
# Read after the distribution's own 20auto-upgrades, and gone when the choice is the image's again.
UNATTENDED = "/etc/apt/apt.conf.d/52sammy-unattended"


def wanted(config: Config) -> list[str]:
    """Return the packages of this step and of the steps that stand on it."""
    others = (docker.packages(config), nodejs_install.packages(config), agent_install.packages(config))
    return [*own(config), *(name for names in others for name in names)]


def own(config: Config) -> list[str]:
    """Return the packages of this step."""
    upgrades = ["unattended-upgrades"] if config.packages.unattended_upgrades == "on" else []
    return [*config.packages.install, *upgrades]


def unattended(config: Config) -> str | None:
    """Return apt's setting for daily upgrades; None where it is left as the image has it."""
    choice = {"on": "1", "off": "0"}.get(config.packages.unattended_upgrades)
    if choice is None:
        return None
    names = ("Update-Package-Lists", "Unattended-Upgrade")
    return "// Written by cloud-init-sammy; sammy.packages.unattended_upgrades changes it.\n" + "".join(
        f'APT::Periodic::{name} "{choice}";\n' for name in names
    )


def repositories(config: Config) -> list[apt.Repository]:
    """Return every repository that the configuration names."""
    sections = (
        config.packages.apt,
        config.docker.apt if config.docker.source == "docker-ce" else None,
        config.nodejs.apt if config.nodejs.source == "nodesource" else None,
        config.agent.apt if config.agent.source == "apt" else None,
    )
    return [apt.Repository.from_config(section) for section in sections if section]


def already_done(host: Host, config: Config) -> str | None:
    """Everything is installed."""
    names = wanted(config)
    if files.read_text(UNATTENDED) != unattended(config) or apt.missing(host, names):
        return None
    return f"{len(names)} packages are installed already"


def run(host: Host, config: Config) -> None:
    """Install what is missing; daemon.json is written first, because Docker's package starts it."""
    docker.write_daemon_json(host, config)
    setting = unattended(config)
    if setting is None:
        files.remove(UNATTENDED)
    else:
        files.write_text(UNATTENDED, setting)
    if not apt.missing(host, wanted(config)):
        return
    changed = [repository.write() for repository in repositories(config)]
    with _apt_timers_stopped(host):
        stale = any(changed) or not glob.glob(f"{apt_mirror.lists()}/*Packages*")
        _install(host, config, lists_stale=stale)


@contextlib.contextmanager
def _apt_timers_stopped(host: Host) -> Iterator[None]:
    """Keep apt's timers from taking dpkg's lock meanwhile.

    Stopped before they are masked: masking a running timer leaves it failed (seen with systemd 252).
    """
    running = [timer for timer in TIMERS if systemd.unit_properties(host, timer).get("ActiveState") == "active"]
    host.run(["systemctl", "stop", *TIMERS], check=False)
    host.run(["systemctl", "mask", "--runtime", "--quiet", *TIMERS], check=False)
    try:
        yield
    finally:
        host.run(["systemctl", "unmask", "--runtime", "--quiet", *TIMERS], check=False, cleanup=True)
        if running:
            host.run(["systemctl", "start", "--no-block", *running], check=False, cleanup=True)


def _install(host: Host, config: Config, *, lists_stale: bool) -> None:
    whole = apt.missing(host, wanted(config))
    try:
        apt.install(host, whole, lists_stale=lists_stale)
    except StepFailed:
        ours = apt.missing(host, own(config))
        if ours == whole:
            raise
        # A package of another step that cannot be installed is reported by that step, which installs it itself.
        if ours:
            apt.install(host, ours)


def verify(host: Host, config: Config) -> bool:
    """The configured packages are installed; other steps check theirs themselves."""
    return files.read_text(UNATTENDED) == unattended(config) and not apt.missing(host, own(config))


STEP = Step(
    "packages",
    "packages",
    already_done,
    run,
    after=("firewall",),
    exclusive_resources=frozenset({"apt"}),
    verify=verify,
    retries=2,
)
