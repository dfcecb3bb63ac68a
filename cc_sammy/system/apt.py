# SPDX-License-Identifier: Apache-2.0
"""apt as the steps need it: one transaction, signed repositories, verified downloads, bounded waits."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cc_sammy.common import files
from cc_sammy.contract.config_types import AptRepository
from cc_sammy.errors import CommandFailed, SammyError, StepFailed
from cc_sammy.host.host import Host
from cc_sammy.system import apt_mirror

OPTIONS = (
    "-o", "DPkg::Lock::Timeout=300",  # unattended-upgrades may hold it; apt names the holder
    "-o", "Acquire::Retries=2",
    "-o", "Acquire::http::Timeout=20",
    "-o", "Acquire::https::Timeout=20",
    # `apt-get update` calls an unreachable mirror a warning and exits 0 otherwise
    "-o", "APT::Update::Error-Mode=any",
    "-o", "Dpkg::Options::=--force-confold",
    "-o", "Dpkg::Use-Pty=0",
)  # fmt: skip
NEXT_STEP = (
    "Look at the mirror and the network (`apt-get update`), then `cloud-init single --name sammy --frequency always`"
)

# apt's messages for transient causes
TRANSIENT_MESSAGES = (
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Cannot initiate the connection",
    "Connection failed",
    "Connection reset",
    "timed out",
    "Network is unreachable",
    "Could not get lock",
    "  50",  # "Failed to fetch URL  503  Service Unavailable"
)

LISTS_LOCKED = re.compile(r"Could not get lock \S*lists/lock")
LISTS_WAIT_SECONDS, LISTS_POLL_SECONDS = 300.0, 1.0  # apt-daily.service updates the lists at boot

# dpkg's states between "not installed" and "installed" (dpkg(1)); pending triggers count as installed
UNFINISHED = re.compile(r"^Status: \S+ \S+ (?:half-installed|unpacked|half-configured)$", re.MULTILINE)


@dataclass(frozen=True)
class Repository:
    """An apt repository with its own key; the key counts for this repository alone (Signed-By).

    Its files are named by what it is: apt refuses two entries for one repository that name different key files.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    key: str

    @classmethod
    def from_config(cls, section: AptRepository) -> Repository:
        """Return the repository that a configuration's `apt` section describes."""
        return cls(section.uri, section.suite, section.components or ("main",), section.key)

    def paths(self) -> tuple[str, str]:
        """Return the paths of its key and its source entry."""
        key = hashlib.sha256(f"{self.uri} {self.suite}".encode()).hexdigest()[:12]
        entry = "-".join((key, *self.components))
        return f"/etc/apt/keyrings/sammy-{key}.asc", f"/etc/apt/sources.list.d/sammy-{entry}.list"

    def write(self) -> bool:
        """Write key and source entry; return whether apt's lists must be updated."""
        key, entry = self.paths()
        line = f"deb [signed-by={key}] {self.uri} {self.suite} {' '.join(self.components)}\n"
        changed = files.write_text(key, self.key.strip() + "\n")
        return files.write_text(entry, line) or changed


def missing(host: Host, packages: Sequence[str]) -> list[str]:
    """Return those of the packages that are not installed."""
    if not packages:
        return []
    asked = ["dpkg-query", "-W", "-f=${db:Status-Status} ${Package}\\n", *packages]
    answer = host.run(asked, check=False, timeout=30, quiet=True)
    installed = {
        name for state, _, name in (line.partition(" ") for line in answer.stdout.splitlines())
        if state == "installed"
    }  # fmt: skip
    return [name for name in packages if name not in installed]


def update(host: Host) -> None:
    """Update the package lists; wait for a running update, as apt itself does for dpkg's lock only."""
    end = host.boottime() + LISTS_WAIT_SECONDS
    while True:
        try:
            host.run(["apt-get", *OPTIONS, "update"], timeout=300, env=apt_mirror.environment())
            return
        except CommandFailed as error:
            if not LISTS_LOCKED.search(error.output) or host.boottime() > end:
                raise
        host.sleep(LISTS_POLL_SECONDS)


def interrupted() -> bool:
    """Return whether dpkg was interrupted, by a power cut for example.

    A program may then be on the disk before its package is configured: a dockerd without its group docker was taken
    for one of the image.
    """
    if glob.glob("/var/lib/dpkg/updates/[0-9]*"):
        return True
    return UNFINISHED.search(files.read_text("/var/lib/dpkg/status") or "") is not None


def finish_interrupted(host: Host) -> None:
    """Finish what dpkg was interrupted in; apt refuses to work before."""
    if interrupted():
        host.run(["dpkg", "--configure", "-a", "--force-confold"], timeout=600)


def install(host: Host, packages: Sequence[str], *, lists_stale: bool = False) -> None:
    """Install packages (names or paths of .deb files) in one transaction; read the lists first when needed.

    :raises StepFailed: naming what could not be installed and what to do.
    """
    command = ["apt-get", *OPTIONS, "install", "-y", "--no-install-recommends", *packages]
    try:
        finish_interrupted(host)
        if lists_stale:
            update(host)
        try:
            host.run(command, timeout=900, env=apt_mirror.environment())
        except CommandFailed:
            if lists_stale:
                raise
            update(host)  # lists of a baked image name versions the mirror has dropped
            host.run(command, timeout=900, env=apt_mirror.environment())
    except SammyError as error:
        said = f"could not install {' '.join(packages)}: {error.problem.text}"
        raise StepFailed(said, NEXT_STEP, transient=is_transient(error)) from error


def download(host: Host, urls: Sequence[str], destination: str, digest: str) -> None:
    """Fetch a file from the first URL that has it, verified by apt's own downloader.

    :param digest: "SHA256:<hex>" or "SHA512:<hex>".
    :raises StepFailed: with the error of each URL; nothing is left at the destination.
    """
    answers, transient = [], False
    for url in urls:
        try:
            host.run(["/usr/lib/apt/apt-helper", *OPTIONS, "download-file", url, destination, digest], timeout=600)
            return
        except SammyError as error:
            files.remove(destination)
            transient = transient or is_transient(error)
            answers.append(f"{_without_userinfo(url)}: {error.problem.text}")
    raise StepFailed(
        f"could not download the file with {digest[:23]}…: {'; '.join(answers)}",
        "Compare the checksum in the configuration with the publisher's, and look at the network",
        transient=transient,
    )


def is_transient(error: SammyError) -> bool:
    """Return whether apt's message names a transient cause: the network, a server, the lock."""
    text = f"{error.problem.text} {getattr(error, 'output', '')}"
    return any(words in text for words in TRANSIENT_MESSAGES)


def _without_userinfo(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
