# SPDX-License-Identifier: Apache-2.0
"""A machine in memory on which every boot step works, and on which any of them can meet a fault at a named point.

It acts on commands as apt, systemd, dockerd and the rest would, so far as the steps look at it; its disk is pyfakefs's.
Whatever a step does to it passes a point with a name, such as "apt-get install", "write /etc/docker/daemon.json" or
"dockerd: pull"; a fault is made at one point of one step. Those of the disk are made by the file system, so that no
call escapes them. The real ones are met in tests/vm/test_fault_matrix.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyfakefs.fake_filesystem import FakeDirectory, FakeFile, FakeFilesystem

from cc_sammy.common import files
from cc_sammy.contract import paths
from cc_sammy.errors import CommandFailed, CommandTimeout
from cc_sammy.firewall import enforce, metadata_table
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult, Host
from cc_sammy.steps import devcontainer_cli, docker, firewall, swap
from cc_sammy.system import docker_api as engine
from tests.unit.fake_files import calls_of_the_kernel, lay_out

FAULTS = (
    "exit", "hang", "killed", "disk-full", "no-network", "dns-dead", "lock-held", "corrupt-download",
    "permission-denied", "read-only",
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
    "read-only": "Read-only file system",
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
KEY = "/etc/sammy/tls/node.key"
LISTS = "/var/lib/apt/lists/x_Packages"
LINKS = {firewall.WANTED_BY: f"/lib/systemd/system/{firewall.UNIT}", swap.WANTED_BY: f"/lib/systemd/system/{swap.NAME}"}
TEMPORARY = re.compile(r"(\.\d+\.\d+)?\.new$")  # the name beside which a file is made
ERRNO = {"disk-full": errno.ENOSPC, "permission-denied": errno.EACCES, "read-only": errno.EROFS}


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
    """The machine; `passed` are the points that steps have passed, `fault` is the one that is met."""

    def __init__(self, fs: FakeFilesystem) -> None:
        super().__init__()
        self.fs = fs
        self.passed: dict[Point, None] = {}  # in order
        self.fault: Fault | None = None
        self.met = 0
        self.no_room: set[tuple[str, str]] = set()  # threads and their files that the disk has no room for
        self.by_itself = threading.local()  # what the machine does, not a step
        self.installed: set[str] = set()
        self.refuses: set[str] = set()  # packages that step packages cannot have
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.tables: set[str] = set()
        self.images: set[str] = set()
        self.docker_users: set[str] = set()
        self.invocation = 0
        self.lay_out({"/proc/sys/kernel/random/boot_id": "one\n", "/proc/swaps": "Filename\n", KEY: "a private key\n"})
        self.lay_out(dict.fromkeys(LINKS.values(), ""), 0o755)
        fs.chmod(KEY, 0o644)
        os.chown(KEY, 1000, 1000)
        for folder in ("/usr/local/bin", paths.RUNS, os.path.dirname(paths.STATE)):
            fs.create_dir(folder)

    def lay_out(self, texts: Mapping[str, str], mode: int = 0o644) -> None:
        """Put files there, as the machine itself does."""
        self.by_itself.acts = True
        lay_out(self.fs, texts, mode)
        self.by_itself.acts = False

    # Points and faults.

    def at(self, name: str, meets: Sequence[str]) -> str | None:
        """Pass a point; return the fault that is met there."""
        # a thread of a step is named after it
        thread = threading.current_thread().name.removeprefix("sammy-").partition("_")[0]
        step = "image-prepull" if thread == "pull" else thread
        if step in ("MainThread", "run-record"):
            return None
        point = Point(step, name, tuple(meets))
        self.passed[point] = None
        if self.fault is None or self.fault.point != point:
            return None
        self.met += 1
        return self.fault.kind

    def at_write(self, path: str, entry: FakeFile | None = None) -> None:
        """Pass a point where the disk is written to; a file for which there is no room can be made, and not filled."""
        if getattr(self.by_itself, "acts", False):
            return
        kind = self.at(f"write {TEMPORARY.sub('', path)}", tuple(ERRNO))
        if kind == "disk-full" and entry is not None:
            self.no_room.add((threading.current_thread().name, str(entry.name)))
        elif kind is not None:
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
            self.lay_out({LISTS: ""})
            return
        if not os.path.exists(LISTS) and not words[1].startswith("/"):
            raise CommandFailed(argv, 100, f"E: Unable to locate package {words[1]}\n")
        names = {"sammy-agent" if "sammy-agent" in name else name for name in words[1:]}
        if names & self.refuses and threading.current_thread().name == "sammy-packages":
            raise CommandFailed(argv, 100, f"E: Unable to locate package {sorted(names & self.refuses)[0]}\n")
        self.installed |= names
        if "docker.io" in names:
            self.lay_out({"/usr/sbin/dockerd": ""}, 0o755)
            self._systemctl(["start", docker.UNIT], ())
        if "nodejs" in names:
            self.lay_out({"/usr/bin/node": ""}, 0o755)

    def _apt_helper(self, words: list[str], argv: Sequence[str]) -> None:
        self.lay_out({words[2]: ""})

    def _tar(self, words: list[str], argv: Sequence[str]) -> None:
        folder = argv[argv.index("--directory") + 1]
        self.lay_out({f"{folder}/bin/node": ""}, 0o755)
        self.lay_out({f"{folder}/{devcontainer_cli.PROGRAM}": ""})

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
        self._show_on_disk()
        return None

    def _show_on_disk(self) -> None:
        """Have the links of enabled units, and the kernel's list of swap, as systemd leaves them."""
        self.by_itself.acts = True
        for link, unit in LINKS.items():
            if os.path.basename(link) in self.enabled and not os.path.lexists(link):
                self.fs.create_symlink(link, unit)
        in_use = f"{swap.FILE} file\n" if swap.NAME in self.active else ""
        self.fs.get_object("/proc/swaps").set_contents(f"Filename\n{in_use}")
        self.by_itself.acts = False

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
    for module, name, value in (
        (swap, "RESERVED_MB", 1),
        (engine, "answers", machine.answers),
        (engine, "request", machine.request),
        (engine, "_answer", machine.pulled),
        (
            docker,
            "users_missing_from_group",
            lambda config: [one for one in ["workspace"] if one not in machine.docker_users],
        ),
    ):
        patch.setattr(module, name, value)
    _play_rules(machine, patch)
    calls_of_the_kernel(machine.fs, patch)
    _watch_disk(machine, patch)
    yield


def _watch_disk(machine: FaultMachine, patch: Any) -> None:
    """Have each change of the disk's tree pass its point, whatever call makes it."""
    disk = FakeFilesystem
    add, make, rename, chmod, fill = (
        FakeDirectory.add_entry, disk.makedirs, disk.rename, disk.chmod, disk.change_disk_usage,
    )  # fmt: skip

    def add_entry(folder: FakeDirectory, entry: FakeFile) -> None:
        if entry.st_ino is None and not isinstance(entry, FakeDirectory):  # else renamed or made: points of their own
            machine.at_write(os.path.join(str(folder.path), str(entry.name)), entry)
        add(folder, entry)

    def made(fs: FakeFilesystem, path: str, *more: Any, **named: Any) -> None:
        if not fs.isdir(path):  # not as an entry: makedirs of pyfakefs 4.6 says ENOENT for any error but EACCES
            machine.at_write(path)
        make(fs, path, *more, **named)

    def renamed(fs: FakeFilesystem, old: str, new: str, *more: Any, **named: Any) -> None:
        machine.at_write(str(new))
        rename(fs, old, new, *more, **named)

    def mode_changed(fs: FakeFilesystem, path: str | int, *more: Any, **named: Any) -> None:
        if not isinstance(path, int):  # a file that is open passed its point as it was made
            machine.at_write(path)
        chmod(fs, path, *more, **named)

    def filled(fs: FakeFilesystem, more: int, name: str, device: int) -> None:
        if more > 0 and (threading.current_thread().name, name) in machine.no_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        fill(fs, more, name, device)

    for kind, name, watched in (
        (FakeDirectory, "add_entry", add_entry),
        (disk, "makedirs", made),
        (disk, "rename", renamed),
        (disk, "chmod", mode_changed),
        (disk, "change_disk_usage", filled),
    ):
        patch.setattr(kind, name, watched)


def _play_rules(machine: FaultMachine, patch: Any) -> None:
    """The kernel's tables, each loaded by one transaction of nft and kept in a file."""

    def load(table: str) -> None:
        machine.run(["nft", "-f", "-"], input=f"table inet {table}")
        machine.tables.add(table)
        files.write_text(f"/var/lib/sammy/firewall/{table}.nft", table, mode=0o600)

    def apply(host: Host, policy: object, input_policy: str) -> None:
        load("sammy")

    def check(host: Host, policy: object) -> list[str]:
        return [] if "sammy" in machine.tables else ["the table is missing"]

    patch.setattr(enforce, "apply", apply)
    patch.setattr(enforce, "check", check)
    patch.setattr(metadata_table, "apply", lambda *_: load("sammy_metadata"))
    patch.setattr(metadata_table, "is_in_force", lambda *_: "sammy_metadata" in machine.tables)
