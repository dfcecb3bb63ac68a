# SPDX-License-Identifier: Apache-2.0
"""A machine in memory on which every boot step works, and on which any of them can meet a fault at a named point.

It acts on commands as apt, systemd, dockerd and the rest would, so far as the steps look at it. Whatever a step does to
it passes a point with a name, such as "apt-get install", "write /etc/docker/daemon.json" or "dockerd: pull"; a fault is
made at one point of one step. The real ones are met in tests/vm/test_fault_matrix.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cc_sammy.errors import CommandFailed, CommandTimeout
from cc_sammy.firewall import enforce, metadata_block
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult, Host
from cc_sammy.steps import devcontainer_cli, docker, firewall, nodejs_install, swap
from cc_sammy.system import docker_api as engine

FAULTS = (
    "exit", "hang", "killed", "disk-full", "no-network", "dns-dead", "lock-held", "corrupt-download",
    "permission-denied",
)  # fmt: skip
# What a fault makes be said, wherever it is met.
WORDS = {
    "exit": "a fault of the test",
    "hang": "killed after",
    "killed": "killed by signal 9",
    "disk-full": "No space left on device",
    "no-network": "Network is unreachable",
    "dns-dead": "Could not resolve",
    "lock-held": "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)",
    "corrupt-download": "Hash Sum mismatch",
    "permission-denied": "Permission denied",
}
ANY_COMMAND, WRITES, FETCHES = (
    ("exit", "hang", "killed"),
    ("disk-full", "permission-denied"),
    ("no-network", "dns-dead"),
)
# What else than any command's faults these can meet.
MEETS = {
    "apt-get update": (*WRITES, *FETCHES, "corrupt-download"),
    "apt-get install": (*WRITES, *FETCHES, "corrupt-download", "lock-held"),
    "apt-helper": (*WRITES, *FETCHES, "corrupt-download"),
    "tar": WRITES,
    "mkswap": WRITES,
    "usermod": WRITES,
    "systemctl enable": WRITES,
}
# dockerd says most things in words of its own around them.
PULL = {
    "exit": "a fault of the test",
    "disk-full": "failed to register layer: write /x: No space left on device",
    "no-network": "dial tcp 192.0.2.1:5000: connect: Network is unreachable",
    "dns-dead": "dial tcp: lookup registry.invalid: Could not resolve: no such host",
    "corrupt-download": "filesystem layer verification failed for digest sha256:1 (Hash Sum mismatch)",
    "permission-denied": "pull access denied for x: Permission denied",
}
# Where no command is there to be killed.
OTHER_WORDS = {
    ("dockerd: ping", "hang"): "dockerd does not answer",
    ("dockerd: pull", "hang"): "timed out",
    ("dockerd: pull", "killed"): "dockerd broke off",
}
IMAGE = "registry.invalid/x:1"
ERRNO = {"disk-full": errno.ENOSPC, "permission-denied": errno.EACCES}


@dataclass(frozen=True)
class Point:
    """A named place where one step acts on the machine, and the faults that can be met there."""

    step: str
    name: str
    meets: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """One kind of fault at one point."""

    kind: str
    point: Point

    @property
    def words(self) -> str:
        """What must be said of it."""
        return OTHER_WORDS.get((self.point.name, self.kind), WORDS[self.kind])


class FaultMachine(FakeHost):
    """The machine; `passed` are the points that steps have passed, `fault` is the one that is met.

    :param disk: a folder for the files that steps make with calls of their own; all others are in memory.
    """

    def __init__(self, disk: Path) -> None:
        super().__init__({"/proc/sys/kernel/random/boot_id": "one\n"})
        self.disk = str(disk)
        self.passed: dict[Point, None] = {}  # in order
        self.fault: Fault | None = None
        self.met = 0
        self.installed: set[str] = set()
        self.refuses: set[str] = set()  # packages that step packages cannot have
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.tables: set[str] = set()
        self.images: set[str] = set()
        self.docker_users: set[str] = set()
        self.invocation = 0
        for folder in ("bin", "tls"):
            (disk / folder).mkdir()
        (disk / "tls/node.key").write_text("a private key\n")
        (disk / "tls/node.key").chmod(0o644)

    # Points and faults.

    def at(self, name: str, meets: Sequence[str]) -> str | None:
        """Pass a point; return the fault that is met there."""
        thread = (
            threading.current_thread().name.removeprefix("sammy-").partition("_")[0]
        )  # a thread of a step is named after it
        step = "image-prepull" if thread == "pull" else thread
        if step in ("MainThread", "history"):
            return None
        point = Point(step, name, tuple(meets))
        self.passed[point] = None
        if self.fault is None or self.fault.point != point:
            return None
        self.met += 1
        return self.fault.kind

    def at_write(self, path: str) -> None:
        """Pass a point where something is written."""
        shown = path.removesuffix(".new").replace(self.disk, "…")
        kind = self.at(f"write {shown}", WRITES)
        if kind is not None:
            raise OSError(ERRNO[kind], os.strerror(ERRNO[kind]), path)

    # Commands.

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = 60.0, **more: Any) -> CommandResult:
        """Act on a command, or meet the fault of its point."""
        program = os.path.basename(argv[0])
        words = [word for word in argv[1:] if not word.startswith("-") and "::" not in word]
        name = f"{program} {words[0]}" if program in ("apt-get", "systemctl", "dpkg") else program
        # A failure that nobody checks is none; a command that hangs holds its step all the same.
        meets = (*ANY_COMMAND, *MEETS.get(name, ())) if check else ("hang",)
        kind = self.at(name if check else f"{name}, unchecked", meets)
        self.calls.append(tuple(argv))
        if kind == "hang":
            self.now += min(timeout, 900.0)
            raise CommandTimeout(argv, timeout, "")
        if kind is not None:
            raise CommandFailed(argv, -9 if kind == "killed" else 1, f"E: {WORDS[kind]}\n")
        act = getattr(self, "_" + program.replace("-", "_"), None)
        return CommandResult(tuple(argv), 0, (act(words, argv) if act else None) or "")

    def _dpkg_query(self, words: list[str], argv: Sequence[str]) -> str:
        return "".join(f"installed {name}\n" for name in words if name in self.installed)

    def _apt_get(self, words: list[str], argv: Sequence[str]) -> None:
        if words[0] == "update":
            self.files["/var/lib/apt/lists/x_Packages"] = ""
            return
        if "/var/lib/apt/lists/x_Packages" not in self.files and not words[1].startswith("/"):
            raise CommandFailed(argv, 100, f"E: Unable to locate package {words[1]}\n")
        names = {"sammy-agent" if "sammy-agent" in name else name for name in words[1:]}
        if names & self.refuses and threading.current_thread().name == "sammy-packages":
            raise CommandFailed(argv, 100, f"E: Unable to locate package {sorted(names & self.refuses)[0]}\n")
        self.installed |= names
        if "docker.io" in names:
            self.files["/usr/sbin/dockerd"] = ""
            self._systemctl(["start", docker.UNIT], ())
        if "nodejs" in names:
            self.files["/usr/bin/node"] = ""

    def _apt_helper(self, words: list[str], argv: Sequence[str]) -> None:
        self.write_raw(words[2])

    def write_raw(self, path: str) -> None:
        """Put a file there."""
        if path.startswith(self.disk):
            Path(path).write_text("")
        else:
            self.files[path] = ""

    def _tar(self, words: list[str], argv: Sequence[str]) -> None:
        folder = Path(argv[argv.index("--directory") + 1])
        (folder / "bin").mkdir()
        for name in ("bin/node", devcontainer_cli.PROGRAM):
            (folder / name).write_text("")

    def _usermod(self, words: list[str], argv: Sequence[str]) -> None:
        self.docker_users.add(words[-1])

    def _systemctl(self, words: list[str], argv: Sequence[str]) -> str | None:
        verb, units = words[0], words[1:]
        if verb == "show":
            state = "active" if units[0] in self.active else "inactive"
            enabled = "enabled" if units[0] in self.enabled else "disabled"
            return f"ActiveState={state}\nUnitFileState={enabled}\nInvocationID={self.invocation}\n"
        changed = {"enable": self.enabled, "start": self.active, "restart": self.active}.get(verb)
        if changed is not None:
            starts = verb == "restart" or (verb == "start" and docker.UNIT not in self.active)
            self.invocation += docker.UNIT in units and starts
            changed.update(units)
        if verb == "stop":
            self.active -= set(units)
        return None

    # Files: in memory, but those on the disk, which steps also touch by themselves.

    def read_text(self, path: str) -> str | None:
        """Return the text; the kernel's list of swap as systemd left it."""
        if path == "/proc/swaps":
            return f"Filename\n{swap.FILE} file\n" if swap.NAME in self.active else "Filename\n"
        return Host.read_text(self, path) if path.startswith(self.disk) else super().read_text(path)

    def write_text(self, path: str, text: str, *, mode: int = 0o644, sync: bool = False) -> bool:
        """Write it, or meet the fault of its point."""
        if self.read_text(path) != text:
            self.at_write(path)
        if path.startswith(self.disk):
            return Host.write_text(self, path, text, mode=mode)
        return super().write_text(path, text, mode=mode, sync=sync)

    def remove(self, path: str) -> bool:
        """Remove it."""
        return Host.remove(self, path) if path.startswith(self.disk) else super().remove(path)

    def exists(self, path: str) -> bool:
        """Tell whether it is there; links that `systemctl enable` makes are."""
        if path in (firewall.WANTED_BY, swap.WANTED_BY):
            return os.path.basename(path) in self.enabled
        return Host.exists(self, path) if path.startswith(self.disk) else super().exists(path)

    def which(self, program: str) -> str | None:
        """Find a program in memory or among those that steps link."""
        linked = f"{self.disk}/bin/{program}"
        return linked if os.path.exists(linked) else super().which(program)

    # What dockerd answers.

    def answers(self) -> bool:
        """Tell whether dockerd answers its ping."""
        return docker.UNIT in self.active and self.at("dockerd: ping", ("hang",)) is None

    def request(self, method: str, path: str, *, timeout: float = 10.0) -> tuple[int, bytes]:
        """Answer a question about an image or the containers."""
        if docker.UNIT not in self.active:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        if path == "/containers/json":
            return 200, b"[]"
        return (200, b'{"Id": "sha256:1"}') if self.images else (404, b"{}")

    @contextlib.contextmanager
    def pulled(self, method: str, path: str, timeout: float) -> Iterator[Any]:
        """Answer a pull."""
        kind = self.at("dockerd: pull", (*ANY_COMMAND, *WRITES, *FETCHES, "corrupt-download"))
        if kind == "hang":
            raise TimeoutError("timed out")
        if kind == "killed":
            raise ConnectionError("dockerd broke off")
        if kind is None:
            self.images.add(IMAGE)
        lines = [] if kind is None else [json.dumps({"error": PULL[kind]}).encode()]
        yield _Answer(200, lines)


class _Answer(list[bytes]):
    """dockerd's answer to a pull: its lines, and a status."""

    def __init__(self, status: int, lines: Sequence[bytes]) -> None:
        super().__init__(lines)
        self.status = status


@contextlib.contextmanager
def played(machine: FaultMachine, patch: Any) -> Iterator[None]:
    """Have the steps meet this machine also where they do not ask their host.

    :param patch: pytest's monkeypatch.
    """
    disk = machine.disk
    for module, name, value in (
        (nodejs_install, "PREFIX", f"{disk}/opt/nodejs"),
        (nodejs_install, "PATH_FOLDER", f"{disk}/bin"),
        (devcontainer_cli, "PREFIX", f"{disk}/opt/devcontainer-cli"),
        (swap, "FILE", f"{disk}/swapfile"),
        (swap, "KEPT_FREE_MB", 1),
        (engine, "answers", machine.answers),
        (engine, "request", machine.request),
        (engine, "_answer", machine.pulled),
        (docker, "lacking_users", lambda config: [one for one in ["workspace"] if one not in machine.docker_users]),
    ):
        patch.setattr(module, name, value)
    _play_rules(machine, patch)
    for call in ("makedirs", "rename", "chmod", "symlink", "posix_fallocate"):
        patch.setattr(os, call, _watched(machine, getattr(os, call), 0 if call in ("makedirs", "chmod") else 1))
    yield


def _watched(machine: FaultMachine, call: Any, argument: int) -> Any:
    def watched(*arguments: Any, **more: Any) -> Any:
        path = swap.FILE if isinstance(arguments[0], int) else str(arguments[argument])
        if path.startswith(machine.disk) and not os.path.isdir(path):
            machine.at_write(path)
        return call(*arguments, **more)

    return watched


def _play_rules(machine: FaultMachine, patch: Any) -> None:
    """The kernel's tables, each loaded by one transaction of nft and kept in a file."""

    def load(table: str) -> None:
        machine.run(["nft", "-f", "-"], input=f"table inet {table}")
        machine.tables.add(table)
        machine.write_text(f"/var/lib/sammy/firewall/{table}.nft", table)

    def apply(host: Host, policy: object, input_policy: str) -> None:
        load("sammy")

    def check(host: Host, policy: object) -> list[str]:
        return [] if "sammy" in machine.tables else ["the table is missing"]

    patch.setattr(enforce, "apply", apply)
    patch.setattr(enforce, "check", check)
    patch.setattr(metadata_block, "apply_metadata", lambda *_: load("sammy_metadata"))
    patch.setattr(metadata_block, "metadata_in_force", lambda *_: "sammy_metadata" in machine.tables)
