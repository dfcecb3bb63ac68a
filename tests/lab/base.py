# SPDX-License-Identifier: Apache-2.0
"""The operating system of the machines: a Debian tree as a cloud image has it, cached until its inputs change.

What a boot is to install itself (Docker, git, curl, Node.js, ...) is not in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import archive, leftovers
from tests.lab.shell import cached, digest, run, say

# fmt: off
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-resolved", "libpam-systemd", "dbus", "udev", "procps", "kmod", "login",
    "cloud-init", "nftables", "iptables", "iproute2", "netbase", "sudo", "ca-certificates",
    "python3", "python3-systemd", "python3-requests", "python3-yaml", "python3-jsonschema",
)
# udevd would take over the host's devices, and networkd waits for it
MASKED = (
    "systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
)
# fmt: on
# Each entry undoes a difference between a container and a cloud's VM that cloud-init would complain of.
CLOUD_CONFIG = {
    "datasource_list": ["NoCloud"],
    "network": {"config": "disabled"},  # cloud-init's own renderer asks udev
    "locale": "C.UTF-8",  # its locale module needs a recommended package
    "ssh_genkeytypes": [],  # there is no ssh-keygen
    "ssh_deletekeys": False,
    "apt": {"preserve_sources_list": True},  # else the public mirror stands there again
}
RECIPE = "1"  # raise it when _settle changes


@dataclass(frozen=True)
class Base:
    """The layers of a machine's root, topmost first, as overlayfs takes them."""

    suite: str
    layers: tuple[Path, ...]
    debian_sources: str

    @property
    def status(self) -> Path:
        """The dpkg status of the lowest layer: what is there before anything of ours."""
        return self.layers[-1] / "var/lib/dpkg/status"


def debian(suite: str = "bookworm") -> Base:
    """Return the tree of a Debian suite; the first call builds it (half a minute, and the network).

    :raises LabError: no mmdebstrap, no mirror.
    """
    leftovers.sweep()
    key = digest(suite, RECIPE, *PACKAGES, *MASKED, json.dumps(CLOUD_CONFIG))

    def build(directory: Path) -> None:
        say(f"building the {suite} tree with mmdebstrap (about half a minute) ...")
        _bootstrap(suite, directory / "tree")
        sources = directory / "tree/etc/apt/sources.list"
        shutil.copy(sources, directory / "debian.list")
        _settle(directory / "tree")

    directory = cached(f"base-{suite}", key, build)
    return Base(suite, (directory / "tree",), (directory / "debian.list").read_text())


def with_debs(lower: Base, debs: Sequence[Path]) -> Base:
    """Return the base with packages installed in it by apt, their maintainer scripts run, cached by their contents.

    What they depend on and the base lacks comes from Debian's archive.
    """
    if not debs:
        return lower
    key = digest(str(lower.layers[0]), *sorted(debs))

    def build(directory: Path) -> None:
        say(f"installing {', '.join(deb.name for deb in debs)} into the tree ...")
        missing = archive.closure(lower, [], debs)
        _install(lower, [*debs, *missing], directory)

    layer = cached("debs", key, build, keep_days=2) / "upper"
    return Base(lower.suite, (layer, *lower.layers), lower.debian_sources)


def _bootstrap(suite: str, tree: Path) -> None:
    # Without a mirror named, mmdebstrap takes Debian's own with updates and security; the host's entries stay out.
    command = ["mmdebstrap", "--variant=minbase", "--format=directory", "--aptopt=APT::Install-Recommends false"]
    run([*command, f"--include={','.join(PACKAGES)}", suite, tree], timeout=1200)


def _settle(tree: Path) -> None:
    """Make the tree bootable as a machine that has never been booted."""
    for empty in ("etc/fstab", "etc/machine-id", "etc/apt/sources.list"):
        (tree / empty).write_text("")  # an fstab that names the host's disk would remount it
    shutil.rmtree(tree / "etc/apt/sources.list.d", ignore_errors=True)
    (tree / "etc/apt/sources.list.d").mkdir()
    (tree / "var/log/journal").mkdir(exist_ok=True)
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (tree / "etc/cloud/cloud.cfg.d/90-lab.cfg").write_text(json.dumps(CLOUD_CONFIG, indent=1) + "\n")
    run(["chroot", tree, "systemctl", "enable", "systemd-networkd", "systemd-resolved"])
    (tree / "etc/hostname").unlink(missing_ok=True)


# In mount and process namespaces of its own: nothing stays mounted or running, however it ends.
INSTALL = """
mount -t overlay lab -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
mkdir "$WORK/root/debs"
mount --bind "$WORK/debs" "$WORK/root/debs"
mount -t proc proc "$WORK/root/proc"
printf '#!/bin/sh\\nexit 101\\n' > "$WORK/root/usr/sbin/policy-rc.d"
chmod 755 "$WORK/root/usr/sbin/policy-rc.d"
chroot "$WORK/root" apt-get -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 install -y --no-install-recommends $DEBS
rm "$WORK/root/usr/sbin/policy-rc.d"
umount "$WORK/root/debs"
rmdir "$WORK/root/debs"
"""


def _install(lower: Base, debs: Sequence[Path], directory: Path) -> None:
    for name in ("upper", "work", "root", "debs"):
        (directory / name).mkdir()
    for deb in debs:
        shutil.copy(deb, directory / "debs")
    run(
        ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "sh", "-ec", INSTALL],
        env={
            "LOWER": ":".join(map(str, lower.layers)),
            "WORK": str(directory),
            "DEBS": " ".join(f"/debs/{deb.name}" for deb in debs),
            "DEBIAN_FRONTEND": "noninteractive",
        },
        timeout=600,
    )
    for name in ("work", "root", "debs"):
        shutil.rmtree(directory / name)
