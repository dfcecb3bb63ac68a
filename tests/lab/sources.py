# SPDX-License-Identifier: Apache-2.0
"""Everything a boot downloads, served by the edge: a boot that uses these needs no network beyond its surroundings.

Packages from a signed apt repository, Node.js and the devcontainer CLI as checked archives, an image from a registry.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import archive, npm, repository
from tests.lab.base import Base
from tests.lab.network import ALLOWED, Loopback, Network
from tests.lab.registry import NAME, TAG, Registry
from tests.lab.shell import CACHE, run
from tests.lab.web import Web

PACKAGES = ("git", "curl", "wget", "jq", "htop", "vim", "docker.io")
WEB_PORT, REGISTRY_PORT = 8000, 5000


class Sources:
    """The servers in a network's edge; a context manager. `web` can be told to misbehave (`web.fault`).

    :param debs: packages of ours; they and what they depend on are in the repository.
    :param packages: what else is in it, with dependencies as seen from `base`.
    """

    def __init__(
        self, network: Network | Loopback, base: Base, debs: Sequence[Path] = (), packages: Sequence[str] = PACKAGES
    ) -> None:
        self.network = network
        self.directory = CACHE / "sources" / network.name
        self._web_port, self._registry_port = network.port(WEB_PORT), network.port(REGISTRY_PORT)
        self._registry: Registry | None = None
        self.web: Web
        self._names = {run(["dpkg-deb", "--field", deb, "Package"]).stdout.strip() for deb in debs}
        client = [] if base.suite == "bookworm" else ["docker-cli"]  # later docker.io packages have no client
        closure = archive.closure(base, [*packages, *client], debs)
        self.node, self.devcontainer_cli = npm.node(), npm.devcontainer_cli()
        try:
            (self.directory / "www").mkdir(parents=True)
            self._key = repository.make(self.directory / "www/apt", [*closure, *debs])
            for file in (self.node.path, self.devcontainer_cli.path):
                repository.link_or_copy(file, self.directory / "www" / file.name)
            self.web = Web(network, self.directory / "www", self._web_port)
            self._registry = Registry(network, base, self.directory, self._registry_port)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def url(self, path: str) -> str:
        """Return the address of a path of the web server, as the machine sees it."""
        return f"http://{self.network.edge}:{self._web_port}{path}"

    @property
    def apt(self) -> dict[str, Any]:
        """The repository as the configuration's `apt` sections take it."""
        return {
            "uri": self.url("/apt"),
            "suite": repository.SUITE,
            "components": [repository.COMPONENT],
            "key": self._key,
        }

    @property
    def image(self) -> str:
        """The image's name at the registry."""
        return f"{self.network.edge}:{self._registry_port}/{NAME}:{TAG}"

    @property
    def daemon(self) -> dict[str, Any]:
        """What dockerd must know to pull it: the registry speaks plain HTTP."""
        return {"insecure-registries": [f"{self.network.edge}:{self._registry_port}"]}

    def user_config(self) -> dict[str, Any]:
        """Return a `sammy:` value with which a boot downloads everything from here."""
        # One section names the repository: apt refuses two entries for one address with different keys.
        return {
            "packages": {"apt": self.apt},
            "docker": {"source": "distro", "daemon": self.daemon},
            "agent": {"source": "apt" if "sammy-agent" in self._names else "none"},
            "nodejs": {
                "source": "archive",
                "version": self.node.version,
                "sha256": self.node.checksum,
                "urls": [self.url(f"/{self.node.path.name}")],
            },
            "devcontainer_cli": {
                "version": self.devcontainer_cli.version,
                "integrity": self.devcontainer_cli.checksum,
                "urls": [self.url(f"/{self.devcontainer_cli.path.name}")],
            },
            "image_prepull": {"images": [self.image]},
            "firewall": {"allow": list(ALLOWED)},
        }

    def close(self) -> None:
        """End the servers, remove what they served. Safe at any time."""
        if self._registry is not None:
            self._registry.close()
            self._registry = None
        if hasattr(self, "web"):
            self.web.close()
            del self.web
        shutil.rmtree(self.directory, ignore_errors=True)
