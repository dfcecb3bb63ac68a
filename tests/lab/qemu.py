# SPDX-License-Identifier: Apache-2.0
"""A virtual machine: what the container of machine.py does not have is real here (kernel, udev, modules, power cut).

Its network is qemu's own user network: the guest reaches the host's 127.0.0.1 as 10.0.2.2. KVM is used only if it
proves itself: a /dev/kvm that opens may still never run the guest's first instruction (seen on nested hosts).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.disk import Disk
from tests.lab.guest_agent import GuestAgent
from tests.lab.machine import CloudInit
from tests.lab.shell import CACHE, LabError, run, say, wait_until

HOST = "10.0.2.2"  # the host's loopback, as the guest sees it
KVM_PROOF = 6.0  # seconds that KVM has to bring the kernel's first line
FIRST_LINE = "Linux version"
APPEND = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off systemd.show_status=1"


class VirtualMachine:
    """One virtual machine with a disk of its own over the image's; the verbs are those of `Machine`.

    :param forward: ports of the host's loopback to ports of the guest.
    """

    def __init__(
        self,
        name: str,
        disk: Disk,
        user_data: str | Mapping[str, Any],
        *,
        directory: Path | None = None,
        forward: Mapping[int, int] | None = None,
    ) -> None:
        self.name, self._disk, self._forward = name, disk, dict(forward or {})
        self.directory = directory or CACHE / "machines" / f"sammylab-{os.getpid()}-{name}"
        self.console_path = self.directory / "serial.log"
        self.journal_path = self.directory / "journal.json"
        self.accelerator = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.directory.mkdir(parents=True, exist_ok=True)
        self._overlay = self.directory / "disk.qcow2"
        self._overlay.unlink(missing_ok=True)
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk.raw, self._overlay])
        self._agent = GuestAgent(self.directory / "agent.sock")
        self.seed(user_data)

    def __enter__(self) -> VirtualMachine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"<VirtualMachine {self.name} {self.accelerator or 'off'}>"

    def seed(self, user_data: str | Mapping[str, Any]) -> None:
        """Give cloud-init its user-data: the text, or a mapping that becomes a `#cloud-config`."""
        text = user_data if isinstance(user_data, str) else "#cloud-config\n" + json.dumps(user_data, indent=1) + "\n"
        parts = {
            "user-data": text,
            "meta-data": json.dumps({"instance-id": f"vm-{self.name}", "local-hostname": self.name}) + "\n",
        }
        for name, content in parts.items():
            (self.directory / name).write_text(content)
            (self.directory / name).chmod(0o600)
        paths = [self.directory / name for name in parts]
        image = self.directory / "seed.iso"
        run(["genisoimage", "-quiet", "-output", image, "-volid", "cidata", "-joliet", "-rock", *paths])
        image.chmod(0o600)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Power on; returns when the kernel has said its first word.

        :raises LabError: with the end of the console.
        """
        if self.alive:
            raise LabError(f"{self.name} is up already")
        if os.access("/dev/kvm", os.R_OK | os.W_OK) and self.accelerator != "tcg":
            self._launch("kvm", ["-accel", "kvm", "-cpu", "host"])
            if self._speaks(KVM_PROOF):
                return
            self.kill()
            say("KVM does not run here: software emulation instead")
        self._launch("tcg", ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"])
        if not self._speaks(120):
            self.kill()
            raise LabError(f"{self.name} does not begin to boot\n{self.console()}")

    def _launch(self, accelerator: str, how: Sequence[str]) -> None:
        self.accelerator = accelerator
        self.console_path.write_bytes(b"")
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in self._forward.items())
        port = "virtserialport,chardev={},name={}"
        command = [
            "qemu-system-x86_64", "-machine", "q35", *how, "-smp", "2", "-m", "1536", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot",
            "-kernel", self._disk.kernel, "-initrd", self._disk.initrd, "-append", APPEND,
            "-drive", f"file={self._overlay},if=virtio,format=qcow2,cache=unsafe",
            "-drive", f"file={self.directory / 'seed.iso'},if=virtio,format=raw,readonly=on",
            "-netdev", f"user,id=net{forward}", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=serial,path={self.console_path}", "-serial", "chardev:serial",
            "-chardev", f"file,id=journal,path={self.journal_path},append=on",
            "-device", port.format("journal", "journal"),
            "-chardev", f"socket,id=agent,path={self.directory / 'agent.sock'},server=on,wait=off",
            "-device", port.format("agent", "org.qemu.guest_agent.0"),
        ]  # fmt: skip
        self._started = time.monotonic()
        errors = (self.directory / "qemu.log").open("ab")
        with errors:
            self._process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )

    def _speaks(self, seconds: float) -> bool:
        def spoke() -> bool:
            return FIRST_LINE in self.console_path.read_text(errors="replace") or not self.alive

        with contextlib.suppress(LabError):
            wait_until(spoke, "the kernel's first line", seconds)
        return self.alive and FIRST_LINE in self.console_path.read_text(errors="replace")

    def wait_cloud_init(self, deadline: float = 600.0) -> CloudInit:
        """Wait (seconds) for cloud-init's last word and return it. LabError with the end of the console."""
        ends = time.monotonic() + deadline
        while True:
            if not self.alive:
                raise LabError(f"{self.name} went off before cloud-init ended\n{self.console()}")
            with contextlib.suppress(LabError):
                if self.run(["test", "-e", "/run/cloud-init/result.json"], check=False).returncode == 0:
                    break
            if time.monotonic() > ends:
                raise LabError(f"cloud-init did not end within {deadline:.0f} s\n{self.console()}")
            time.sleep(1.0)
        seconds = time.monotonic() - self._started
        done = self.run(["cloud-init", "status", "--long", "--wait"], check=False, timeout=120)
        return CloudInit(done.returncode, re.sub(r"^\.+\n?", "", done.stdout), seconds)

    def run(
        self, argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest as root (timeout in seconds).

        :raises LabError: it is off, the agent does not answer, or (with `check`) a status other than 0.
        """
        if not self.alive:
            raise LabError(f"{self.name} is off: cannot run {' '.join(argv)}")
        done = self._agent.run(argv, input=input, timeout=timeout)
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr)[-2000:]
            raise LabError(f"{' '.join(argv)} ended with status {done.returncode}: {said}")
        return done

    def read(self, path: str) -> str:
        """Return a file's text. LabError when there is none."""
        return self.run(["cat", path]).stdout

    def set_clock(self) -> None:
        """Set the guest's clock to the host's."""
        self._agent.ask("guest-set-time", {"time": time.time_ns()})

    def poweroff(self, deadline: float = 120.0) -> None:
        """Power off in good order and wait (seconds) for it."""
        with contextlib.suppress(LabError):  # it may go before it answers
            self._agent.ask("guest-shutdown", {"mode": "powerdown"}, seconds=2.0)
        try:
            wait_until(lambda: not self.alive, f"{self.name} powers off\n{self.console()}", deadline)
        finally:
            self.kill()

    def kill(self) -> None:
        """Cut the power. Safe when it is off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def console(self, lines: int = 30) -> str:
        """Return the end of the serial console, colours removed."""
        if not self.console_path.exists():
            return "(the console is empty)"
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.console_path.read_text(errors="replace"))
        return "\n".join(f"  | {line}" for line in plain.splitlines()[-lines:])

    def cleanup(self) -> None:
        """Cut the power and remove the disk. Safe at any time."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
