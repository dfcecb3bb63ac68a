# SPDX-License-Identifier: Apache-2.0
"""Node.js and the devcontainer CLI as archives, had once through the npm client, which checks what it fetches."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab.shell import LabError, cached, digest, run, say

NODE = "22.23.3"
DEVCONTAINER_CLI = "0.89.0"
ARCHITECTURES = {"amd64": "x64", "arm64": "arm64"}


@dataclass(frozen=True)
class Archive:
    """A file to download, its version, and its checksum as the configuration wants it."""

    path: Path
    version: str
    checksum: str


def node() -> Archive:
    """Return Node.js as its project packs it: one folder node-vX-linux-ARCH with bin/node; the checksum is SHA-256.

    :raises LabError: no npm, no network the first time, or an architecture without a Node.js.
    """
    debian = run(["dpkg", "--print-architecture"]).stdout.strip()
    if debian not in ARCHITECTURES:
        raise LabError(f"there is no Node.js archive for {debian}; there is one for {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[debian]
    folder = f"node-v{NODE}-linux-{architecture}"

    def build(directory: Path) -> None:
        packed, _ = _pack(f"node-linux-{architecture}@{NODE}", directory)
        (directory / folder).mkdir()
        run(["tar", "-xf", packed, "-C", directory / folder, "--strip-components=1", "--exclude=package/include"])
        same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
        run(["tar", *same, "-C", directory, "-czf", directory / f"{folder}.tar.gz", folder])
        _write_sum(directory / f"{folder}.tar.gz")
        shutil.rmtree(directory / folder)
        packed.unlink()

    path = cached("node", digest(folder), build) / f"{folder}.tar.gz"
    return Archive(path, NODE, path.with_suffix(".sha256").read_text())


def devcontainer_cli() -> Archive:
    """Return the devcontainer CLI's npm archive; the checksum is npm's integrity (sha512-...)."""

    def build(directory: Path) -> None:
        packed, integrity = _pack(f"@devcontainers/cli@{DEVCONTAINER_CLI}", directory)
        packed.rename(directory / f"cli-{DEVCONTAINER_CLI}.tgz")
        (directory / "integrity").write_text(integrity)

    directory = cached("devcontainer-cli", digest(DEVCONTAINER_CLI), build)
    return Archive(directory / f"cli-{DEVCONTAINER_CLI}.tgz", DEVCONTAINER_CLI, (directory / "integrity").read_text())


def _pack(package: str, directory: Path) -> tuple[Path, str]:
    say(f"fetching {package} with npm ...")
    said = run(["npm", "pack", "--json", package], cwd=directory, timeout=600).stdout
    about = json.loads(said)[0]
    # npm 8 names a scoped package's file with its scope's sign and slash; it writes it with a dash
    return directory / about["filename"].replace("@", "").replace("/", "-"), about["integrity"]


def _write_sum(path: Path) -> None:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            whole.update(piece)
    path.with_suffix(".sha256").write_text(whole.hexdigest())
