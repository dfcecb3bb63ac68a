# SPDX-License-Identifier: Apache-2.0
"""A machine's surroundings: an `edge` in the allowed range, which is also its way out, and a `stranger` outside it.

Every machine has surroundings of its own, so the addresses are the same in all of them and nothing of it reaches the
host's network. The machine's namespace is made anew at each power-on: packet filter rules do not outlive a real
machine's power either.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.lab.shell import run

MACHINE4, MACHINE6 = "10.91.1.1", "fd91:1::1"
EDGE4, EDGE6 = "10.91.1.2", "fd91:1::2"
MACHINE_FOR_STRANGER4, MACHINE_FOR_STRANGER6 = "10.91.2.1", "fd91:2::1"
STRANGER4, STRANGER6 = "10.91.2.2", "fd91:2::2"
METADATA4, METADATA6 = "169.254.169.254", "fd00:ec2::254"
ALLOWED = ("10.91.1.0/24", "fd91:1::/64")

# What the machine's networkd reads, by path.
NETWORKD = {
    "/etc/systemd/network/10-lab-edge.network": f"""\
[Match]
Name=eth0
[Network]
Address={MACHINE4}/24
Address={MACHINE6}/64
Gateway={EDGE4}
Gateway={EDGE6}
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
""",
    "/etc/systemd/network/10-lab-stranger.network": f"""\
[Match]
Name=eth1
[Network]
Address={MACHINE_FOR_STRANGER4}/24
Address={MACHINE_FOR_STRANGER6}/64
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
""",
}
CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Network:
    """Three network namespaces: machine, edge, stranger. A context manager; `close` is safe at any time."""

    ROLES = ("machine", "edge", "stranger")
    edge, bind = EDGE4, "::"  # where the machine finds what the edge serves, and where that listens

    def __init__(self, name: str) -> None:
        self.name = f"sammylab-{os.getpid()}-{name}"
        try:
            for role in ("edge", "stranger"):
                self._make(role)
            for address in (f"{METADATA4}/32", f"{METADATA6}/128"):
                self.ip("edge", f"addr add {address} dev lo")
            forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
            self.run("edge", ["sh", "-ec", forward])
            self.ip("edge", "route add unreachable default")
            self.ip("edge", "-6 route add unreachable default")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Network {self.name}>"

    def namespace(self, role: str) -> str:
        """Return the namespace's name for `ip netns`."""
        if role not in self.ROLES:
            raise ValueError(f"role is {role!r}; allowed are {', '.join(self.ROLES)}")
        return f"{self.name}-{role}"

    def ip(self, role: str, words: str) -> str:
        """Run one `ip` command inside."""
        return run(["ip", "-n", self.namespace(role), *words.split()]).stdout

    def _make(self, role: str) -> None:
        run(["ip", "netns", "add", self.namespace(role)])
        self.ip(role, "link set lo up")

    def plug(self) -> None:
        """Give the machine a fresh namespace with eth0 to the edge and eth1 to the stranger; it configures itself."""
        self.unplug()
        self._make("machine")
        wires = (("eth0", "edge", EDGE4, EDGE6, MACHINE4, MACHINE6),
                 ("eth1", "stranger", STRANGER4, STRANGER6, MACHINE_FOR_STRANGER4, MACHINE_FOR_STRANGER6))  # fmt: skip
        for device, role, address4, address6, machine4, machine6 in wires:
            far = self.namespace(role)
            self.ip("machine", f"link add {device} type veth peer name up0 netns {far}")
            self.ip(role, f"addr add {address4}/24 dev up0")
            self.ip(role, f"addr add {address6}/64 dev up0 nodad")
            self.ip(role, "link set up0 up")
            self._route(role, machine4, machine6)

    def _route(self, role: str, machine4: str, machine6: str) -> None:
        """The stranger tries everything through the machine; the edge knows the machine's containers, and no more.

        What the machine sends elsewhere is answered "unreachable" by the edge: no packet circles, no test waits.
        """
        if role == "stranger":
            self.ip(role, f"route replace default via {machine4}")
            self.ip(role, f"-6 route replace default via {machine6}")
        else:
            self.ip(role, f"route replace 172.16.0.0/12 via {machine4}")

    def unplug(self) -> None:
        """Take the machine's namespace away, wires first: the kernel ends a namespace only some time later."""
        for role in ("edge", "stranger"):
            run(["ip", "-n", self.namespace(role), "link", "del", "up0"], check=False)
        run(["ip", "netns", "del", self.namespace("machine")], check=False)

    def link(self, role: str, *, up: bool) -> None:
        """Cut or mend the wire between the machine and a role."""
        self.ip(role, f"link set up0 {'up' if up else 'down'}")
        if up:  # the kernel drops IPv6 addresses and routes with the link
            address6, machine6 = (EDGE6, MACHINE6) if role == "edge" else (STRANGER6, MACHINE_FOR_STRANGER6)
            machine4 = MACHINE4 if role == "edge" else MACHINE_FOR_STRANGER4
            self.ip(role, f"addr replace {address6}/64 dev up0 nodad")
            self._route(role, machine4, machine6)

    def run(
        self, role: str, argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the host inside (network only; timeout in seconds)."""
        return run([*self.enter(role), *argv], check=check, input=input, timeout=timeout)

    def enter(self, role: str) -> list[str]:
        """Return the words that put a command into a role's network, for programs that the caller starts."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(role)}"]

    def port(self, usual: int) -> int:
        """Return the port for a server of the edge: it is alone there, so the usual one."""
        return usual

    def call(self, role: str, function: Callable[[], T]) -> T:
        """Call a function in a thread inside: a socket it makes belongs to that network for good."""
        outcome: list[T] = []
        problems: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{self.namespace(role)}", "rb") as handle:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append(function())
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]
        return outcome[0]

    def close(self) -> None:
        """Delete the namespaces."""
        with contextlib.suppress(Exception):
            self.unplug()
        for role in ("edge", "stranger"):
            run(["ip", "netns", "del", self.namespace(role)], check=False)


class Loopback:
    """The host's own loopback in the place of an edge: what a virtual machine with qemu's user network reaches."""

    edge, bind = "10.0.2.2", "127.0.0.1"

    def __init__(self, name: str) -> None:
        self.name = f"sammylab-{os.getpid()}-{name}"

    def port(self, usual: int) -> int:
        """Return a free port: on the host, others may have the usual one."""
        with socket.create_server((self.bind, 0)) as free:
            return int(free.getsockname()[1])

    def call(self, role: str, function: Callable[[], T]) -> T:
        """Call the function: there is only one network."""
        return function()

    def enter(self, role: str) -> list[str]:
        """Return no words: there is only one network."""
        return []
