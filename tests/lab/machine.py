# SPDX-License-Identifier: Apache-2.0
"""A machine: real systemd, journald and cloud-init in systemd-nspawn over a cached tree, with a disk that stays.

It is as near to a cloud's VM as a container comes. Not real: kernel, modules, udev, uptime, memory and CPU limits of
Docker. `kill` ends every process at once as a power cut does, but what was written without fsync is not lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.base import Base, with_debs
from tests.lab.cgroup import Cgroup
from tests.lab.network import NETWORKD, Network
from tests.lab.shell import CACHE, LabError, run, unmount, wait_until

# In a mount namespace of its own: cgroups as version 2 alone, wherever the host has it, and a folder for nspawn's
# notes that goes with it (nspawn does not empty one that lies on a disk).
LAUNCH = """
echo $$ > "$CGROUP/cgroup.procs"
umount --recursive /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
exec systemd-nspawn "$@"
"""
# =network: /sys stays read-only, else udev starts and networkd waits for it
NSPAWN_ENVIRONMENT = {
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_SECCOMP": "0",
}
JOIN = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
ENVIRONMENT = (
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
DOCKER_DATA = ("var/lib/docker", "var/lib/containerd")  # overlay2 does not work on an overlay
File = str | bytes | tuple[str | bytes, int]  # content, or (content, mode)


@dataclass(frozen=True)
class CloudInit:
    """How a boot ended: `cloud-init status --long`, its exit status, and seconds from power-on to result.json."""

    returncode: int
    text: str
    seconds: float

    @property
    def status(self) -> str:
        """The word after `status:`."""
        found = re.search(r"^status: (.*)$", self.text, re.MULTILINE)
        return found.group(1) if found else "unknown"


class Machine:
    """One machine; a context manager. Several may be up at once: everything they have carries name and process id.

    :param user_data: the text of the user-data, or a mapping that becomes a `#cloud-config`.
    :param extra_debs: packages that the image already has.
    :param files: path in the machine -> content, or (content, mode); written before the first boot.
    :param network: surroundings to live in (one machine at a time); without it the machine makes its own.
    """

    def __init__(
        self,
        name: str,
        base: Base,
        user_data: str | Mapping[str, Any],
        *,
        extra_debs: Sequence[Path] = (),
        files: Mapping[str, File] | None = None,
        network: Network | None = None,
    ) -> None:
        if os.geteuid() != 0:
            raise LabError("a machine needs root", "Run it with sudo")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", name):
            raise LabError(f"a machine's name is {name!r}; allowed are a-z, 0-9 and -, at most 32")
        self.name = name
        self.identity = f"sammylab-{os.getpid()}-{name}"
        self.base = with_debs(base, extra_debs)
        self.directory = CACHE / "machines" / self.identity
        self.root = self.directory / "root"
        self.console_path = self.directory / "console.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init: int | None = None
        self._started = 0.0
        self._own_network = network is None
        self._cgroup = Cgroup(self.identity)
        if self.directory.exists():
            raise LabError(f"a machine named {name} is there already", "Name it differently, or clean it up first")
        try:
            self._make_disk()
            self.network = network or Network(name)
            self.seed(user_data)
            for path, content in {**NETWORKD, **(files or {})}.items():
                self.write(path, content)
        except BaseException:
            self.cleanup()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<Machine {self.identity} {'up' if self.alive else 'off'}>"

    # The disk, while the machine is off.

    def _make_disk(self) -> None:
        for part in ("upper", "work", "root", *DOCKER_DATA):
            (self.directory / part).mkdir(parents=True)
        layers = ":".join(map(str, self.base.layers))
        options = f"lowerdir={layers},upperdir={self.directory}/upper,workdir={self.directory}/work"
        run(["mount", "-t", "overlay", self.identity, "-o", options, self.root])

    def seed(self, user_data: str | Mapping[str, Any], *, instance_id: str | None = None) -> None:
        """Give cloud-init its user-data; another instance-id makes the disk a clone's."""
        text = user_data if isinstance(user_data, str) else "#cloud-config\n" + json.dumps(user_data, indent=1) + "\n"
        about = {"instance-id": instance_id or f"lab-{self.name}", "local-hostname": self.name}
        self.write("/var/lib/cloud/seed/nocloud/user-data", (text, 0o600))
        self.write("/var/lib/cloud/seed/nocloud/meta-data", json.dumps(about) + "\n")

    def write(self, path: str, content: File) -> None:
        """Write a file while the machine is off."""
        if self.alive:
            raise LabError(f"{self.name} is up: its disk cannot be written from outside", "Use run(..., input=...)")
        data, mode = content if isinstance(content, tuple) else (content, 0o644)
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        target.chmod(mode)

    def read(self, path: str) -> str:
        """Return a file's text, the machine up or off.

        :raises LabError: there is no such file.
        """
        if self.alive:
            return self.run(["cat", path]).stdout
        return run(["chroot", self.root, "cat", path]).stdout

    def exists(self, path: str) -> bool:
        """Tell whether a path is there, the machine up or off."""
        test = ["test", "-e", path]
        if self.alive:
            return self.run(test, check=False).returncode == 0
        return run(["chroot", self.root, *test], check=False).returncode == 0

    # Power.

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def start(self) -> None:
        """Power on; returns when PID 1 runs.

        :raises LabError: with the end of the console, when it does not come up.
        """
        if self.alive:
            raise LabError(f"{self.name} is up already")
        self._after_stop()
        self.network.plug()
        self._cgroup.make()
        self._started = time.monotonic()
        binds = [f"--bind={self.directory}/{part}:/{part}" for part in DOCKER_DATA]
        arguments = [
            "--quiet", "--boot", "--keep-unit", "--register=no",
            f"--directory={self.root}", f"--machine={self.identity}",
            f"--network-namespace-path=/run/netns/{self.network.namespace('machine')}", "--capability=all",
            "--console=read-only", "--link-journal=no", "--timezone=off", *binds,
        ]  # fmt: skip
        with self.console_path.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "sh", "-ec", LAUNCH, "sh", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, **NSPAWN_ENVIRONMENT, "CGROUP": str(self._cgroup.path)},
            )
        try:
            self._wait(lambda: self._find_init() is not None, "PID 1 runs", 60)
        except BaseException:
            self.kill()
            raise

    def _find_init(self) -> int | None:
        """Return the host's number of the machine's PID 1 once it is systemd in its own cgroup."""
        assert self._nspawn is not None
        pid = self._nspawn.pid
        with contextlib.suppress(OSError, ValueError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                status = Path(f"/proc/{child}/status").read_text()
                numbers = re.search(r"^NSpid:\s+(.*)$", status, re.MULTILINE)
                inside = numbers.group(1).split()[-1] if numbers else ""
                if inside == "1" and "Name:\tsystemd\n" in status and self._cgroup.of_init().is_dir():
                    self._init = int(child)
                    return self._init
        return None

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        def come() -> bool:
            if condition():
                return True
            if not self.alive:
                status = self._nspawn.returncode if self._nspawn else "?"
                raise LabError(f"{self.name} went off (nspawn's status {status}) before: {what}\n{self.console()}")
            return False

        try:
            wait_until(come, f"{self.name}: {what}", seconds)
        except LabError as error:
            if self.alive:
                raise LabError(f"{error.problem.text}\n{self.console()}") from error
            raise

    def wait_cloud_init(self, deadline: float = 300.0) -> CloudInit:
        """Wait (seconds) for cloud-init's last word and return it; asks nothing of the machine meanwhile.

        :raises LabError: with the end of the console.
        """
        result = Path(f"/proc/{self._init}/root/run/cloud-init/result.json")
        self._wait(result.exists, "cloud-init has ended", deadline)
        seconds = time.monotonic() - self._started
        # The unit is still active for a moment after the file is there, and status says "running" so long.
        done = self.run(["cloud-init", "status", "--long", "--wait"], check=False, timeout=60)
        return CloudInit(done.returncode, done.stdout.lstrip(".\n"), seconds)

    def poweroff(self, deadline: float = 60.0) -> None:
        """Power off in good order and wait (seconds) for it; it is off afterwards in any case.

        :raises LabError: it did not in time, or systemd did not end in good order.
        """
        nspawn = self._nspawn
        self.run(["systemctl", "poweroff"], check=False)  # its own connection may end first
        try:
            wait_until(lambda: not self.alive, f"{self.name} powers off", deadline)
        except LabError as error:
            raise LabError(f"{error.problem.text}\n{self.console()}") from error
        finally:
            self.kill()
        if nspawn is not None and nspawn.returncode != 0:
            raise LabError(f"{self.name} ended with nspawn's status {nspawn.returncode}\n{self.console()}")

    def kill(self) -> None:
        """Cut the power: SIGKILL to every process at once. Safe when it is off."""
        self._cgroup.kill()
        if self._nspawn is not None:
            with contextlib.suppress(ProcessLookupError):
                self._nspawn.kill()
            self._nspawn.wait(60)
        self._after_stop()

    def _after_stop(self) -> None:
        self._nspawn = self._init = None
        self._cgroup.remove()

    # What happens inside.

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine as root, as part of its init.scope (so `kill` ends it too).

        :param timeout: seconds.
        :raises LabError: it is off, the deadline passed, or (with `check`) a status other than 0.
        """
        return run([*self.enter(), *argv], check=check, input=input, timeout=timeout)

    def enter(self) -> list[str]:
        """Return the words that make a command run in the machine, for programs that the caller starts and ends.

        :raises LabError: it is off.
        """
        if not self.alive or self._init is None:
            raise LabError(f"{self.name} is off", "start() it")
        join = ["sh", "-c", JOIN, str(self._cgroup.of_init())]
        return [*join, "nsenter", f"--target={self._init}", "--all", "--", "env", "-i", *ENVIRONMENT]

    def in_namespace(
        self, role: str, argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the host in the network of `edge`, `stranger` or `machine`."""
        return self.network.run(role, argv, check=check, input=input, timeout=timeout)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return journal entries, of all boots, the machine up or off; takes any words that journalctl takes."""
        journalctl = ["journalctl", "--output=json", "--all", "--no-pager"]  # without --all, long fields are null
        if self.alive:
            text = self.run([*journalctl, *matches]).stdout
        else:
            text = run([*journalctl, f"--directory={self.root}/var/log/journal", *matches]).stdout
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def console(self, lines: int = 40) -> str:
        """Return the end of the console, colours removed."""
        if not self.console_path.exists():
            return "(the console is empty)"
        text = self.console_path.read_text(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
        return "\n".join(f"  | {line}" for line in plain.splitlines()[-lines:])

    def cleanup(self) -> None:
        """Take everything away: processes, cgroup, mount, disk, own network. Safe at any time, any number of times."""
        with contextlib.ExitStack() as last_to_first:  # each is done even if one before it fails
            if self._own_network and hasattr(self, "network"):
                last_to_first.callback(self.network.close)
            last_to_first.callback(unmount, self.root, then_remove=self.directory)
            last_to_first.callback(self.kill)
