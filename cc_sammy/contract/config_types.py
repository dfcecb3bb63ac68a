# SPDX-License-Identifier: Apache-2.0
"""The configuration as types: what schema.json says of each option, so that a misspelt key is an error of mypy.

The schema is the definition and the only place of defaults; tests/unit/test_config_types.py holds every field to its
option and every option to its field. An option without a default is None where it is not given.
"""

# No `from __future__ import annotations`: config.py builds the sections by their annotations, and takes them as types.
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cc_sammy.contract.firewall_config import FirewallConfig

# The sections that belong to a step, and so have an option `required`.
StepSection = Literal[
    "agent",
    "packages",
    "docker",
    "firewall",
    "tls",
    "nodejs",
    "devcontainer_cli",
    "journald",
    "swap",
    "image_prepull",
    "docker_restart",
    "metadata_block",
]


class AptRepository(NamedTuple):
    """An apt repository with its signing key."""

    uri: str
    suite: str
    components: tuple[str, ...]
    key: str


class ControlPlaneConfig(NamedTuple):
    """The control plane that the agent reports to."""

    url: str | None
    token_file: str | None
    ca_file: str | None


class AgentPackageConfig(NamedTuple):
    """sammy-agent: where its package comes from."""

    port: int
    debug_push: bool
    source: Literal["installed", "deb", "url", "apt", "none"]
    deb: str | None
    url: str | None
    sha256: str | None
    apt: AptRepository | None
    required: bool


class PackagesConfig(NamedTuple):
    """Debian packages for the people and agents on the node."""

    install: tuple[str, ...]
    mirror: str | None
    security_mirror: str | None
    unattended_upgrades: Literal["keep", "on", "off"]
    apt: AptRepository | None
    required: bool


class DockerConfig(NamedTuple):
    """Docker Engine."""

    source: Literal["distro", "docker-ce", "installed", "none"]
    apt: AptRepository | None
    users: tuple[str, ...]
    dns: tuple[str, ...]
    log_tag: str | None
    address_pools: tuple[str, ...]
    registry_mirrors: tuple[str, ...]
    live_restore: bool
    daemon: Mapping[str, Any]  # daemon.json's content is Docker's to define
    required: bool


class TlsConfig(NamedTuple):
    """The node's TLS key."""

    key_file: str
    certificate_file: str
    required: bool


class NodejsConfig(NamedTuple):
    """Node.js."""

    source: Literal["distro", "archive", "nodesource", "none"]
    version: str | None
    sha256: str | None
    urls: tuple[str, ...] | None
    apt: AptRepository | None
    required: bool


class DevcontainerCliConfig(NamedTuple):
    """The devcontainer CLI."""

    source: Literal["archive", "none"]
    version: str | None
    integrity: str | None
    urls: tuple[str, ...] | None
    required: bool


class JournaldConfig(NamedTuple):
    """The journal's size and keeping."""

    storage: Literal["persistent", "auto", "volatile", "keep"]
    system_max_use: str
    system_keep_free: str
    rate_limit_burst: int
    required: bool


class SwapConfig(NamedTuple):
    """A swap file."""

    size_mb: int
    required: bool


class ImagePrepullConfig(NamedTuple):
    """Container images fetched during the boot."""

    images: tuple[str, ...]
    required: bool


class DockerRestartConfig(NamedTuple):
    """Restarting Docker when something it read at its start has changed since."""

    policy: Literal["when-needed", "always", "never"]
    required: bool


class MetadataBlockConfig(NamedTuple):
    """Keeping containers and users from the cloud's metadata service."""

    enabled: bool
    addresses: tuple[str, ...]
    host_processes: bool
    required: bool


class Config(NamedTuple):
    """The whole `sammy:` key, defaults filled in."""

    node_id: str | None
    control_plane: ControlPlaneConfig
    agent: AgentPackageConfig
    packages: PackagesConfig
    docker: DockerConfig
    firewall: FirewallConfig
    tls: TlsConfig
    nodejs: NodejsConfig
    devcontainer_cli: DevcontainerCliConfig
    journald: JournaldConfig
    swap: SwapConfig
    image_prepull: ImagePrepullConfig
    docker_restart: DockerRestartConfig
    metadata_block: MetadataBlockConfig
    max_parallel: int
    run_deadline: int
    step_deadline: int

    def is_required(self, section: StepSection) -> bool:
        """Tell whether a failure of the section's step makes the node failed rather than degraded."""
        return bool(getattr(self, section).required)
