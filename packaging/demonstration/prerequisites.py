# SPDX-License-Identifier: Apache-2.0
"""What the demonstration needs of this machine, had from apt; standard library only, for it runs before all else."""

from __future__ import annotations

import os
import shutil
import subprocess

BUILD = ("debhelper", "dh-python", "dpkg-dev", "python3-all", "python3-setuptools", "pybuild-plugin-pyproject",
         "fakeroot", "build-essential")  # fmt: skip
SOURCES = ("apt-utils", "gnupg", "docker-registry", "mmdebstrap", "uidmap", "zstd", "xz-utils")
CONTROL_PLANE = ("python3-tornado", "python3-jwt", "python3-cryptography", "python3-requests", "python3-systemd",
                 "python3-yaml", "python3-jsonschema")  # fmt: skip
MACHINE = {
    "qemu": ("qemu-system-x86", "qemu-utils", "seabios", "genisoimage", "e2fsprogs", "util-linux"),
    "container": ("systemd-container", "iproute2", "util-linux"),
}
# A package that starts a server of its own when it is installed is kept from it: only we start what we need.
POLICY = "/usr/sbin/policy-rc.d"


def needed(kind: str) -> list[str]:
    """Return the packages for a kind of machine, qemu or container."""
    npm = () if shutil.which("npm") else ("npm",)
    return [*BUILD, *SOURCES, *CONTROL_PLANE, *MACHINE[kind], *npm]


def missing(packages: list[str]) -> list[str]:
    """Return those that are not installed."""
    query = ["dpkg-query", "-W", "-f=${db:Status-Status} ${Package}\n", *packages]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    there = {line.split()[1] for line in answer.stdout.splitlines() if line.startswith("installed ")}
    return [name for name in packages if name not in there]


def install(packages: list[str]) -> None:
    """Install packages; CalledProcessError when apt cannot."""
    ours = not os.path.exists(POLICY)
    if ours:
        with open(POLICY, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    try:
        subprocess.run([*apt, "update"], check=True, env=environment)
        command = [*apt, "install", "-y", "--no-install-recommends", *packages]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            os.unlink(POLICY)
