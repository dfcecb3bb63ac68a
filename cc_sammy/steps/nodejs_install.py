# SPDX-License-Identifier: Apache-2.0
"""Node.js: the distribution's package, or a verified archive that is unpacked and put in place by rename."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from cc_sammy import download_urls
from cc_sammy.common import files
from cc_sammy.config import Config, given
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import apt

PREFIX = "/opt/sammy/nodejs"
PATH_FOLDER = "/usr/local/bin"
PROGRAMS = ("node", "npm", "npx", "corepack")


def packages(config: Config) -> list[str]:
    """Return the packages of the configured source."""
    return ["nodejs"] if config.nodejs.source in ("distro", "nodesource") else []


def comes_by_apt(host: Host, config: Config) -> bool:
    """Return whether Node.js is missing and comes as a package: then the step cannot run in parallel to apt."""
    return bool(packages(config)) and host.which("node") is None


def already_done(host: Host, config: Config) -> str | None:
    """The wanted Node.js is installed."""
    source = config.nodejs.source
    if source == "none":
        return "nodejs.source is none"
    if source == "archive":
        current = files.read_text(f"{PREFIX}/sammy-version")
        wanted = _mark(config)
        return f"Node.js {config.nodejs.version} is installed" if current == wanted and host.which("node") else None
    return "Node.js is installed" if host.which("node") else None


def run(host: Host, config: Config) -> None:
    """Install Node.js and run it once."""
    if config.nodejs.source == "archive":
        _from_archive(host, config)
    else:
        apt.install(host, packages(config))
    host.run(["node", "--version"])


def unpack(host: Host, archive: str, target: str, mark: str, *, programs: str = "bin") -> None:
    """Unpack an archive with one top-level directory next to the target and rename it into place.

    The version file is written last: a target that has it is complete.
    """
    temporary, old = f"{target}.new", f"{target}.old"
    for folder in (temporary, old):
        shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(temporary)
    host.run(
        [
            "tar",
            "--extract",
            "--file",
            archive,
            "--directory",
            temporary,
            "--strip-components=1",
            "--no-same-owner",
        ],
        timeout=300,
    )
    if not os.path.exists(f"{temporary}/{programs}"):
        raise StepFailed(f"{archive} has no {programs} in its top-level directory", "Configure the right archive")
    files.write_text(f"{temporary}/sammy-version", mark)
    if os.path.exists(target):
        os.rename(target, old)
    os.rename(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def link(target: str, name: str) -> None:
    """Link a program into a directory on everybody's PATH, atomically."""
    temporary = f"{PATH_FOLDER}/.{name}.sammy"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, f"{PATH_FOLDER}/{name}")


def _mark(config: Config) -> str:
    return f"{config.nodejs.version} {config.nodejs.sha256}\n"


def _from_archive(host: Host, config: Config) -> None:
    version = given(config.nodejs.version)
    urls = [url.replace("{version}", version) for url in config.nodejs.urls or download_urls.NODEJS_ARCHIVES]
    os.makedirs(os.path.dirname(PREFIX), exist_ok=True)
    archive = f"{PREFIX}.archive"
    try:
        apt.download(host, urls, archive, f"SHA256:{config.nodejs.sha256}")
        unpack(host, archive, PREFIX, _mark(config), programs="bin/node")
    finally:
        files.remove(archive)
    for program in PROGRAMS:
        if os.path.lexists(f"{PREFIX}/bin/{program}"):
            link(f"{PREFIX}/bin/{program}", program)


STEP = Step("nodejs-install", "nodejs", already_done, run, after=("firewall",), retries=2)
# In parallel to the one transaction, it would take apt's locks and break that transaction.
STEP_BY_APT = replace(STEP, after=("firewall", "packages"), exclusive_resources=frozenset({"apt"}))
