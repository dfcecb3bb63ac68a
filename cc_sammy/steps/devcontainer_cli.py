# SPDX-License-Identifier: Apache-2.0
"""The devcontainer CLI: it has no npm dependencies, so its npm archive is unpacked as it is, without npm."""

from __future__ import annotations

import base64
import os

from cc_sammy import download_urls
from cc_sammy.common import files
from cc_sammy.config import Config, given
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps import nodejs_install
from cc_sammy.steps.base import Step
from cc_sammy.system import apt

PREFIX = "/opt/sammy/devcontainer-cli"
PROGRAM = "devcontainer.js"


def already_done(host: Host, config: Config) -> str | None:
    """The wanted version is installed, or none is configured."""
    options = config.devcontainer_cli
    if options.source == "none":
        return "devcontainer_cli.source is none"
    if options.version is None or options.integrity is None:
        if host.which("devcontainer"):
            return "a devcontainer CLI is installed"
        return "devcontainer_cli.version and devcontainer_cli.integrity are not set"
    current = files.read_text(f"{PREFIX}/sammy-version")
    return f"devcontainer CLI {options.version} is installed" if current == _mark(config) else None


def run(host: Host, config: Config) -> None:
    """Fetch, check, unpack and link it."""
    integrity = given(config.devcontainer_cli.integrity)
    digest = base64.b64decode(integrity.removeprefix("sha512-")).hex()
    archive = f"{PREFIX}.archive"
    os.makedirs(os.path.dirname(PREFIX), exist_ok=True)
    try:
        apt.download(host, _urls(host, config), archive, f"SHA512:{digest}")
        nodejs_install.unpack(host, archive, PREFIX, _mark(config), programs=PROGRAM)
    finally:
        files.remove(archive)
    os.chmod(f"{PREFIX}/{PROGRAM}", 0o755)
    nodejs_install.link(f"{PREFIX}/{PROGRAM}", "devcontainer")


def _mark(config: Config) -> str:
    return f"{config.devcontainer_cli.version} {config.devcontainer_cli.integrity}\n"


def _urls(host: Host, config: Config) -> list[str]:
    """Return the addresses: the configuration's, else below the registry of the machine's npm client."""
    version = given(config.devcontainer_cli.version)
    if config.devcontainer_cli.urls:
        return [url.replace("{version}", version) for url in config.devcontainer_cli.urls]
    if host.which("npm") is None:
        raise StepFailed(
            "no source for the devcontainer CLI: there is no npm client to ask for its registry",
            "Set devcontainer_cli.urls",
        )
    registry = host.run(["npm", "config", "get", "registry"]).stdout.strip().rstrip("/")
    return [download_urls.DEVCONTAINER_ARCHIVE.format(registry=registry, version=version)]


STEP = Step("devcontainer-cli", "devcontainer_cli", already_done, run, needs=("nodejs-install",), retries=2)
