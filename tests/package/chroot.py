# SPDX-License-Identifier: Apache-2.0
"""A Debian in which packages are installed and purged: a cached tree, and on it a throw-away layer a test.

All mounts and the network live in namespaces of one process that ends when its standard input does: whatever becomes
of the tests, nothing stays behind, and the firewall of the machine they run on is out of reach.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / "build" / "package"
OWN = ("cloud-init-sammy", "sammy-agent", "sammy-common")
# What the tests themselves use in there, and cloud-init's stages ask for.
TOOLS = ("ca-certificates", "iproute2", "systemd-sysv", "udev")
CLOUD_INIT_DEB = "/srv/cloud-init.deb"


def dependencies() -> list[str]:
    """Return the packages that debian/control's binary packages depend on, our own aside."""
    text = (TOP / "debian" / "control").read_text()
    fields = re.findall(r"^Depends:(.*(?:\n .*)*)", text, re.M)
    names = {part.split("(")[0].split("|")[0].strip() for field in fields for part in field.split(",")}
    return sorted(name for name in names if name and not name.startswith("$") and name not in OWN)


def own_sources(suite: str) -> str:
    """Return the machine's Debian sources, its other ones left out, for the suite."""
    codename = next(
        line.partition("=")[2].strip('"')
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if os.path.exists(path):
            lines = [line for line in Path(path).read_text().splitlines() if not line.startswith("#")]
            return "\n".join(lines).replace(codename, suite) + "\n"
    raise RuntimeError("this machine names no Debian sources in /etc/apt: the tests cannot make a chroot")


def tree(suite: str) -> Path:
    """Return the suite's tree with cloud-init and all dependencies; made when it is not there or its inputs changed."""
    packages = [*dependencies(), *TOOLS]
    sources = own_sources(suite)
    key = hashlib.sha256(f"2 {suite} {packages} {sources}".encode()).hexdigest()[:12]
    made = CACHE / f"{suite}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for old in CACHE.glob(f"{suite}-*"):
                shutil.rmtree(old)
            _bootstrap(suite, packages, sources, made)
    return made


def _bootstrap(suite: str, packages: Sequence[str], sources: str, made: Path) -> None:
    print(f"making a {suite} tree in {made} (once, about a minute)", file=sys.stderr, flush=True)
    kind = "sources" if "URIs:" in sources else "list"
    listed = CACHE / f"{suite}.{kind}"
    listed.write_text(sources)
    beside = CACHE / f"{suite}-new"
    download = f'chroot "$1" sh -c "cd /srv && apt-get download cloud-init && mv cloud-init_*.deb {CLOUD_INIT_DEB}"'
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(packages)}",
    ]
    result = subprocess.run(
        [*command, f"--customize-hook={download}", suite, str(beside), str(listed)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise RuntimeError(f"mmdebstrap ended with {result.returncode}:\n{result.stderr[-3000:]}")
    beside.rename(made)


class Chroot:
    """One throw-away machine without a running systemd; a context manager."""

    def __init__(self, base: Path, layer: Path) -> None:
        self._base, self._layer = base, layer
        self._holder: subprocess.Popen[str] | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<Chroot on {self._base.name}, {'running' if self._holder else 'not running'}>"

    def __enter__(self) -> Chroot:
        for name in ("upper", "work", "root"):
            (self._layer / name).mkdir(parents=True, exist_ok=True)
        root = self._layer / "root"
        layers = f"lowerdir={self._base},upperdir={self._layer}/upper,workdir={self._layer}/work"
        mounts = f"""
            mount -t overlay overlay -o {layers} {root}
            mount -t proc proc {root}/proc
            mount -t sysfs sysfs {root}/sys
            ip link set lo up
            echo ready
            exec cat
        """
        unshare = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-ec", mounts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__()
            raise RuntimeError("the chroot's namespaces could not be made; see unshare's or mount's words above")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self._pid = int(children.split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.communicate()  # closes its input: cat ends, and with it everything in there
            self._holder = None
        shutil.rmtree(self._layer, ignore_errors=True)

    def run(
        self, argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there; with `check` a status other than 0 is an error that shows its output."""
        inside = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--net", "--uts", "--ipc"]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
        result = subprocess.run(
            [*inside, "chroot", str(self._layer / "root"), *argv],
            env={**environment, "DEBIAN_FRONTEND": "noninteractive"},
            input=input, stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and result.returncode != 0:
            raise AssertionError(f"{argv} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def sh(self, script: str) -> str:
        """Run a shell script; return what it printed."""
        return self.run(["sh", "-ec", script]).stdout

    def read(self, path: str) -> str | None:
        """Return a file's text, None when there is none."""
        result = self.run(["cat", path], check=False)
        return result.stdout if result.returncode == 0 else None

    def write(self, path: str, text: str) -> None:
        """Write a file, with its folders."""
        self.run(["sh", "-ec", 'mkdir -p "$(dirname "$1")"; cat > "$1"', "sh", path], input=text)

    def install(self, *debs: Path) -> str:
        """Install packages from files of the outside; return what dpkg printed."""
        for deb in debs:
            subprocess.run(["cp", str(deb), str(self._inside(f"/srv/{deb.name}"))], check=True)
        result = self.run(["dpkg", "--install", *(f"/srv/{deb.name}" for deb in debs)])
        for deb in debs:
            self._inside(f"/srv/{deb.name}").unlink()
        return result.stdout + result.stderr

    def files(self) -> dict[str, str]:
        """Return every path with its kind, link target and, below /etc, checksum; dpkg's own books left out."""
        listing = self.sh(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /var/lib/dpkg -o -path /tmp "
            "-o -path /var/log \\) -prune -o -printf '%p\\t%y %l\\n'; find /etc -type f -exec sha256sum {} +"
        )
        found: dict[str, str] = {}
        for line in listing.splitlines():
            if "\t" in line:
                path, _, kind = line.partition("\t")
                found[path] = kind
            else:
                digest, _, path = line.partition("  ")
                found[path] += digest
        return found

    def _inside(self, path: str) -> Path:
        """Return the outside's way to a file in there, through the holder's mount namespace."""
        return Path(f"/proc/{self._pid}/root{self._layer}/root{path}")
