# SPDX-License-Identifier: Apache-2.0
"""A bootable disk for qemu, from a Debian tree and our packages, without loop devices, boot loaders or root's mounts.

Two layers are kept: the tree (a minute, when Debian's packages are fetched) and the disk made of it (seconds), so that
a change of ours costs only the second. qemu takes kernel and initrd from beside the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.base import Base, with_debs
from tests.lab.shell import cached, digest, run, say

SUITE = "bookworm"
# fmt: off
PACKAGES = (
    # a cloud's machine
    "systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "libpam-systemd", "dbus", "udev", "kmod",
    "init", "login", "procps", "cloud-init", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "lz4", "netplan.io",
    "iproute2", "cloud-guest-utils", "fdisk", "e2fsprogs", "sudo", "locales", "ca-certificates", "netbase",
    "qemu-guest-agent",
    # without it dockerd refuses containers on a kernel that has AppArmor
    "apparmor",
    # what a boot would otherwise fetch and unpack under an emulated CPU: the image is baked, as a fleet's would be
    "docker.io", "iptables", "nftables", "git", "curl", "wget", "jq", "htop", "vim",
    "python3-requests", "python3-systemd", "python3-yaml", "python3-jsonschema", "python3-tornado", "python3-jwt",
    "python3-cryptography",
)
# fmt: on
MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "ext4")
RECIPE = "1"  # raise it when a hook or a file below changes
SIZE = "6G"  # sparse
# The journal goes out by a port of its own: it can be followed, and read after a crash, without the guest's network.
JOURNAL_UNIT = """\
[Unit]
Description=Send the journal to the host
DefaultDependencies=no
After=systemd-journald.service
BindsTo=dev-virtio\\x2dports-journal.device
After=dev-virtio\\x2dports-journal.device
[Service]
ExecStart=/bin/sh -c 'exec journalctl -b -f -n all -o json > /dev/virtio-ports/journal'
Restart=no
[Install]
WantedBy=dev-virtio\\x2dports-journal.device
"""
FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/machine-id": "",
    "etc/apt/sources.list": "",
    "etc/systemd/system/host-journal.service": JOURNAL_UNIT,
    "etc/cloud/cloud.cfg.d/90-demo.cfg": """\
datasource_list: [NoCloud, None]
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
apt: {preserve_sources_list: true}
""",
}
HOOKS = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/var/log/journal"',
    'printf "MODULES=list\\nCOMPRESS=lz4\\n" > "$1/etc/initramfs-tools/conf.d/demo.conf"',
    f'printf "%s\\n" {" ".join(MODULES)} >> "$1/etc/initramfs-tools/modules"',
    'chroot "$1" update-initramfs -u -k all',
)


@dataclass(frozen=True)
class Disk:
    """A raw disk with an ext4 file system on all of it, and what starts it."""

    raw: Path
    kernel: Path
    initrd: Path
    base: Base


def tree() -> Base:
    """Return the Debian tree without anything of ours; the first call builds it.

    :raises LabError: no mmdebstrap, no mirror.
    """
    key = digest(SUITE, RECIPE, *PACKAGES, *MODULES, *HOOKS, *(f"{path}\n{text}" for path, text in FILES.items()))

    def build(directory: Path) -> None:
        say("building the virtual machine's Debian with mmdebstrap (a minute or two) ...")
        hooks = [f"--customize-hook={hook}" for hook in HOOKS]
        options = ["--variant=minbase", "--format=directory", "--aptopt=APT::Install-Recommends false", *hooks]
        target = directory / "tree"
        run(["mmdebstrap", *options, f"--include={','.join(PACKAGES)}", SUITE, target], timeout=1800)
        (directory / "debian.list").write_text((target / "etc/apt/sources.list").read_text())
        shutil.rmtree(target / "etc/apt/sources.list.d", ignore_errors=True)
        (target / "etc/apt/sources.list.d").mkdir()
        for path, text in FILES.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text)
        (target / "etc/hostname").unlink(missing_ok=True)
        run(["chroot", target, "systemctl", "enable", "systemd-networkd", "systemd-resolved", "host-journal"])
        run(["chroot", target, "systemctl", "disable", "docker.service", "docker.socket", "containerd.service"])

    directory = cached("vm-tree", key, build)
    return Base(SUITE, (directory / "tree",), (directory / "debian.list").read_text())


def disk(debs: Sequence[Path]) -> Disk:
    """Return a disk whose image has the packages installed.

    :raises LabError: it could not be made; names the command.
    """
    below = tree()
    base = with_debs(below, debs)

    def build(directory: Path) -> None:
        say("writing the disk ...")
        boot = below.layers[0] / "boot"
        for kind in ("vmlinuz", "initrd.img"):
            shutil.copy(next(boot.glob(f"{kind}-*")), directory / kind)
        _write(base, directory)

    directory = cached("vm-disk", digest(*map(str, base.layers), SIZE), build)
    return Disk(directory / "disk.raw", directory / "vmlinuz", directory / "initrd.img", base)


# In a mount namespace of its own: nothing stays mounted, however it ends.
WRITE = """
if [ "$LAYERS" != "${LAYERS#*:}" ]; then
    mount -t overlay image -o "lowerdir=$LAYERS" "$WORK/merged"
else
    mount --bind "$LAYERS" "$WORK/merged"
fi
mke2fs -q -t ext4 -L root -d "$WORK/merged" "$WORK/disk.raw" "$SIZE"
"""


def _write(base: Base, directory: Path) -> None:
    (directory / "merged").mkdir()
    environment = {"LAYERS": ":".join(map(str, base.layers)), "WORK": str(directory), "SIZE": SIZE}
    run(["unshare", "--mount", "--propagation=private", "sh", "-ec", WRITE], env=environment, timeout=600)
    (directory / "merged").rmdir()
