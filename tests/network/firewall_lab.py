# SPDX-License-Identifier: Apache-2.0
"""Three machines as network namespaces: the vm, an edge in the allowed range, a stranger outside of it.

Small Python programs run inside them; the vm's Host is the real one, entered by `ip netns exec`. A test that calls
the product is inside the vm itself, in its network and with a folder of its own at /var/lib/sammy.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from cc_sammy.host.host import CommandResult, Host

EDGE4, EDGE6 = "10.91.1.2", "fd91:1::2"
STRANGER4, STRANGER6 = "10.91.2.2", "fd91:2::2"
METADATA4, METADATA6 = "169.254.169.254", "fd00:ec2::254"
VM_FOR = {
    "edge": ("10.91.1.1", "fd91:1::1"),
    "stranger": ("10.91.2.1", "fd91:2::1"),
    "vm": ("127.0.0.1", "::1"),
}
AGENT, SSH = 8443, 22

SERVE = """
import socket, sys, threading
def serve(listener):
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello"); connection.close()
for port in sys.argv[1:]:
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", int(port))); listener.listen(64)
    threading.Thread(target=serve, args=(listener,)).start()
print("serving", flush=True)
"""

CONNECT = """
import os, socket, sys
address, port, seconds, uid = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
os.setuid(uid)
try:
    with socket.create_connection((address, port), timeout=seconds) as connection:
        print("reached" if connection.recv(9) == b"hello" else "silent")
except TimeoutError:
    print("dropped")
except ConnectionRefusedError:
    print("refused")
"""

# A bare TCP header with SYN; its checksum does not matter, the packets end in the counting chain behind the firewall.
# 128 of them a system call, by both families: one call a packet would be the limit of the rate. Paced, so that the
# applies between them have a processor too: unpaced, three probers have two of them for themselves.
FLOOD = """
import ctypes, socket, struct, sys, time
class Name(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]
class Message(ctypes.Structure):
    _fields_ = [("header", Name), ("length", ctypes.c_uint32)]
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
header = struct.pack("!HHIIBBHHH", 40000, int(sys.argv[3]), 1, 0, 5 << 4, 2, 1024, 0, 0)
body = ctypes.create_string_buffer(header, len(header))
vector = Vector(ctypes.addressof(body), len(header))
libc = ctypes.CDLL(None, use_errno=True)
BATCH, RATE, floods = 128, 90_000, []
for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sender.connect((address, 0))
    messages = (Message * BATCH)()
    for message in messages:
        message.header.iov, message.header.iovlen = ctypes.addressof(vector), 1
    floods.append((sender, messages))
print("flooding", flush=True)
due = time.monotonic()
while True:
    for sender, messages in floods:
        libc.sendmmsg(sender.fileno(), messages, BATCH, 0)
    due = max(due + 2 * BATCH / RATE, time.monotonic() - 0.05)
    time.sleep(max(0, due - time.monotonic()))
"""


# What strangers are served: each try is given up after 20 ms, so that no SYN is repeated into a later gap.
TRIES = """
import select, socket, sys
served = tried = 0
print("trying", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
        connection = socket.socket(family)
        connection.settimeout(0.02)
        tried += 1
        try:
            connection.connect((address, int(sys.argv[3])))
            served += connection.recv(9) == b"hello"
        except OSError:
            pass
        connection.close()
print(served, tried, flush=True)
"""

BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")


def journal_script(variant: str, networks: Sequence[Sequence[str]], port: int) -> str:
    """Return the peer's order as about 45 calls: flush, append the drops, insert the accepts at place 1.

    :param networks: the IPv4 and the IPv6 networks.
    """
    lines = []
    for program, allowed in zip((f"iptables-{variant}", f"ip6tables-{variant}"), networks, strict=True):
        lines += [f"{program} -P INPUT ACCEPT", f"{program} -F INPUT"]
        for match in (f"tcp --dport {port}", f"udp --dport {port}", "tcp --dport 22"):
            lines.append(f"{program} -A INPUT -p {match} -j DROP")
        lines += [f"{program} -I INPUT 1 -s {network} -p tcp --dport {port} -j ACCEPT" for network in allowed]
        lines += [f"{program} -I INPUT 1 -i {name} -p tcp --dport {port} -j ACCEPT" for name in ("br-+", "docker0")]
        lines.append(f"{program} -I INPUT 1 -i lo -j ACCEPT")
    return "\n".join(lines)


STATE = "/var/lib/sammy"
CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x200, 0x20000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000
LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace: str, folder: str) -> Iterator[None]:
    """Have the test's thread, and what it starts, in the namespace, with the folder mounted at /var/lib/sammy."""
    before, home = os.path.exists(STATE), os.getcwd()
    os.makedirs(STATE, exist_ok=True)
    with contextlib.ExitStack() as opened:
        names = ("/proc/thread-self/ns/net", "/proc/thread-self/ns/mnt", f"/run/netns/{namespace}")
        network, mounts, machine = (opened.enter_context(open(name, "rb")).fileno() for name in names)
        _call(LIBC.unshare, CLONE_NEWNS)
        try:
            _call(LIBC.mount, b"none", b"/", None, MS_REC | MS_SLAVE, None)
            _call(LIBC.mount, folder.encode(), STATE.encode(), None, MS_BIND, None)
            _call(LIBC.setns, machine, CLONE_NEWNET)
            yield
        finally:
            _call(LIBC.setns, network, CLONE_NEWNET)
            _call(LIBC.unshare, CLONE_FS)  # threads begun inside share the root, and none may when it changes
            _call(LIBC.setns, mounts, CLONE_NEWNS)
            os.chdir(home)
            if not before:
                os.rmdir(STATE)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class MachineHost(Host):
    """The real host, its commands inside a namespace.

    :param variant: which iptables the plain command is.
    """

    def __init__(self, namespace: str, variant: str = "nft") -> None:
        super().__init__()
        self.namespace, self.variant = namespace, variant

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        quiet: bool = False,
        cleanup: bool = False,
    ) -> CommandResult:
        words = [f"iptables-{self.variant}" if argv[0] == "iptables" else argv[0], *argv[1:]]
        entered = ["ip", "netns", "exec", self.namespace, *words]
        return super().run(entered, timeout=timeout, check=check, input=input, env=env)


class Lab:
    """The namespaces and the programs in them."""

    def __init__(self) -> None:
        self.names = {role: f"sammyfw-{role}-{os.getpid()}" for role in ("vm", "edge", "stranger")}
        self._processes: list[subprocess.Popen[str]] = []

    def sh(self, role: str, command: str) -> str:
        """Run a shell line inside a machine; fails when the line does."""
        argv = ["ip", "netns", "exec", self.names[role], "sh", "-ec", command]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def build(self) -> None:
        """Make the machines and the two wires; the stranger's is a bridge on the vm's side, as Docker's are."""
        for role, name in self.names.items():
            subprocess.run(["ip", "netns", "add", name], check=True)
            self.sh(role, "ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad")
            self.sh(role, "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        for role in ("edge", "stranger"):
            near, far = self.names["vm"], self.names[role]
            wire = f"ip link add to-{role} netns {near} type veth peer name up0 netns {far}"
            subprocess.run(wire.split(), check=True)
            self.sh("vm", f"ip link set to-{role} up")
        self.sh("vm", "ip link add wan0 type bridge; ip link set to-stranger master wan0; ip link set wan0 up")
        self._address("vm", "to-edge", "10.91.1.1", "fd91:1::1")
        self._address("vm", "wan0", "10.91.2.1", "fd91:2::1")
        self._address("edge", "up0", EDGE4, EDGE6)
        self._address("stranger", "up0", STRANGER4, STRANGER6)
        for role in ("edge", "stranger"):
            gateway4, gateway6 = VM_FOR[role]
            self.sh(role, f"ip route add default via {gateway4}; ip -6 route add default via {gateway6}")
        self.sh("edge", f"ip addr add {METADATA4}/32 dev lo; ip addr add {METADATA6}/128 dev lo nodad")
        self.sh("vm", f"ip route add {METADATA4} via {EDGE4}; ip -6 route add {METADATA6} via {EDGE6}")
        self.sh("vm", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        self.start("vm", SERVE, str(AGENT), str(SSH))
        self.start("edge", SERVE, "80", "443", "53")

    def _address(self, role: str, device: str, address4: str, address6: str) -> None:
        self.sh(role, f"ip link set {device} up; ip addr add {address4}/24 dev {device}")
        self.sh(role, f"ip addr add {address6}/64 dev {device} nodad")

    def start(self, role: str, program: str, *words: str) -> subprocess.Popen[str]:
        """Start a program that says one line when it is ready."""
        argv = ["ip", "netns", "exec", self.names[role], sys.executable, "-c", program, *words]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip(), f"a program in {role} did not start"
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """End one program."""
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._processes.remove(process)

    def connect(self, role: str, address: str, port: int, *, seconds: float = 2.0, uid: int = 0) -> str:
        """Connect and read: reached, dropped (no answer in time) or refused."""
        argv = ["ip", "netns", "exec", self.names[role], sys.executable, "-c", CONNECT]
        words = [address, str(port), str(seconds), str(uid)]
        done = subprocess.run([*argv, *words], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def reach(self, role: str, port: int) -> tuple[str, str]:
        """Connect from a machine to the vm by IPv4 and IPv6."""
        address4, address6 = VM_FOR[role]
        return self.connect(role, address4, port), self.connect(role, address6, port)

    @contextlib.contextmanager
    def tries(self, role: str) -> Iterator[list[int]]:
        """Connect from a machine to the vm's agent port over and over; afterwards [replies, tries]."""
        process = self.start(role, TRIES, *VM_FOR[role], str(AGENT))
        counted: list[int] = []
        try:
            yield counted
            answer, _ = process.communicate("enough\n", timeout=60)
            counted += map(int, answer.split())
        finally:
            self.stop(process)

    @contextlib.contextmanager
    def floods(self, *roles: str) -> Iterator[None]:
        """Send SYNs to the agent's port from these machines, over 50,000 a second each."""
        started = [self.start(role, FLOOD, *VM_FOR[role], str(AGENT)) for role in roles]
        try:
            yield
        finally:
            for process in started:
                self.stop(process)

    def count_around(self) -> None:
        """Count the floods before and behind the firewall, from nought; behind the count they end."""
        lines = ["add table inet probe", "delete table inet probe", "add table inet probe"]
        sources = {"edge": (EDGE4, EDGE6), "stranger": (STRANGER4, STRANGER6), "vm": ("127.0.0.1", "::1")}
        for chain, priority, end in (("before", -300, ""), ("behind", 300, "drop")):
            hook = f"type filter hook input priority {priority};"
            lines.append(f"add chain inet probe {chain} {{ {hook} }}")
            for role, (address4, address6) in sources.items():
                lines.append(f"add counter inet probe {role}_{chain}")
                for match in (f"ip saddr {address4}", f"ip6 saddr {address6}"):
                    syn = f"tcp sport 40000 tcp dport {AGENT}"
                    lines.append(f"add rule inet probe {chain} {match} {syn} counter name {role}_{chain} {end}")
        text = "\n".join(lines)
        self.sh("vm", f"nft -f - <<'END'\n{text}\nEND")

    def counted(self) -> dict[str, int]:
        """Return the packets of each counter now."""
        objects = json.loads(self.sh("vm", "nft --json list counters table inet probe"))["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in objects if "counter" in entry}

    def settled(self) -> dict[str, int]:
        """Return the counters once no packet is under way any more."""
        last: dict[str, int] = {}

        def still() -> bool:
            nonlocal last
            before, last = last, self.counted()
            return before == last

        wait_until(still, "the counters stand still")
        return last

    def clear(self) -> None:
        """Take all rules away, of nft and of both iptables."""
        self.sh("vm", "nft flush ruleset")
        for program in ("iptables-legacy", "ip6tables-legacy"):
            self.sh("vm", f"{program} -P INPUT ACCEPT; {program} -F; {program} -X")

    def close(self) -> None:
        """End what runs, delete the namespaces."""
        for process in list(self._processes):
            self.stop(process)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for a condition; fail by name when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.05)
