# SPDX-License-Identifier: Apache-2.0
"""The churn laboratory: a client, a NAT router and a control plane in namespaces, and what can happen to a network.

Two wirings: `Routed` (veth, router with connection tracking; loose=0 is the harsher setting, 1 the kernel's default)
and `Wired` (a TUN wire with delay, loss and outages, no router). Any number of clients beat side by side, so that one
change hits all kinds alike. Everything is named after the process and removed by `close`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.unit.transport.faults import Authority

CLIENT4, ROUTER_IN4 = "10.92.1.2", "10.92.1.1"
SERVER4, ROUTER_OUT4 = "10.92.2.2", "10.92.2.1"
CLIENT6, SERVER6 = "fd92:1::2", "fd92:2::2"
ROOT = str(Path(__file__).resolve().parents[2])
_numbers = iter(range(1000))

NAT = """
table ip lab {{
  chain out {{ type nat hook postrouting priority srcnat; oifname "out0" {snat}; }}
  chain through {{ type filter hook forward priority filter; ct state invalid drop; }}
}}
"""
# The journal's firewall: what is not established or allowed is dropped; with a flushed table all is "new".
FIREWALL = """*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp --dport 8443 -j ACCEPT
COMMIT
"""


@dataclasses.dataclass(frozen=True)
class Beats:
    """How a client's beats went; seconds. `stall` is how late the machine woke client and server at worst."""

    label: str
    sent: int
    scheduled: int
    lost: int
    longest_gap: float
    recovery: tuple[float, ...]
    stall: float
    errors: tuple[str, ...]

    def __str__(self) -> str:
        recovery = " ".join("never" if seconds == math.inf else f"{seconds:.1f}" for seconds in self.recovery)
        gap = f"longest gap {self.longest_gap:.2f} s (machine {self.stall:.2f})"
        return f"{self.label}: {self.lost}/{self.scheduled} lost, {gap}, back in {recovery}"


def assert_none_lost(beats: Beats, longest: float = 2.0) -> None:
    """Assert it of one client; the longest gap does not count how late the machine woke it."""
    assert (beats.lost, beats.errors) == (0, ()), str(beats)
    assert beats.longest_gap < longest + beats.stall, str(beats)


def summary(label: str, told: dict[str, Any], words: tuple[int, float], begin: float, changes: list[float]) -> Beats:
    """Count; gaps also reach from the beginning to the first success, and from the last to the last tick."""
    threads, (scheduled, interval) = told["beats"], words
    ends = [sorted(end for _, end, error in beats if not error) for beats in threads]
    last_tick = begin + (scheduled - 1) * interval
    gaps = [
        later - earlier for times in ends for earlier, later in zip([begin, *times], [*times, last_tick], strict=True)
    ]
    back = (
        max(next((end for end in times if end > change), math.inf) - change for times in ends) for change in changes
    )
    total = scheduled * len(threads)
    errors = tuple(error for beats in threads for _, _, error in beats if error)
    sent = sum(map(len, threads))
    return Beats(label, sent, total, total - sum(map(len, ends)), max(gaps), tuple(back), told["stall"], errors)


class Client:
    """Beats under way; `schedule` is how many, and seconds between them."""

    schedule: tuple[int, float]

    def __init__(self, lab: Lab, label: str, kind: str, python: str, *words: str) -> None:
        self.label, self._lab = label, lab
        # A kind with a path in it is a program with the same words, not one of churn_client's.
        program, _, its_kind = kind.rpartition(" ")
        argv = [its_kind, "--label", label, *words]
        if program:
            lab.start_once("server", [program, "serve", lab.server_pem, f"{SERVER4}:8444"])
            self.process = lab.start("client", argv, program=[program])
        else:
            argv = ["-m", "tests.network.churn_client", *argv]
            self.process = lab.start("client", argv, program=[python, "-W", "ignore"])
        self._begin = 0.0

    def begin(self, at: float) -> None:
        """Start the clock."""
        self._begin = at
        self._say(str(at))

    def tell(self, reason: str = "told") -> None:
        """Bring news of a network change; a client that has just ended needs none."""
        with contextlib.suppress(BrokenPipeError):
            self._say(reason)

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def result(self, changes: list[float]) -> Beats:
        """Wait for the end and count."""
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.process.communicate()
        told["stall"] += self._lab.server_stall()
        return summary(self.label, told, self.schedule, self._begin, changes)


class Lab:
    """Namespaces `client`, `router`, `server` and the programs in them."""

    roles: tuple[str, ...] = ("client", "router", "server")

    def __init__(self) -> None:
        self._tag = f"{os.getpid()}-{next(_numbers)}"
        self.names = {role: f"sammyct-{role}-{self._tag}" for role in self.roles}
        self._processes: list[subprocess.Popen[str]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="sammy-churn-")
        self.authority = Authority(Path(self._folder.name))
        self.url, self.plain_url = f"https://{SERVER4}", f"http://{SERVER4}"
        self._server: subprocess.Popen[str] | None = None
        self._once: set[tuple[str, ...]] = set()

    def sh(self, role: str, command: str, input: str | None = None) -> str:
        """Run a shell line inside a machine; fails when the line does."""
        argv = ["ip", "netns", "exec", self.names[role], "sh", "-ec", command]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, input=input)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(
        self, role: str, argv: list[str], *, program: Sequence[str] = (sys.executable, "-W", "ignore")
    ) -> subprocess.Popen[str]:
        """Start a program in a machine, or outside when `role` is none of them; it says one line when it is ready."""
        enter = ["ip", "netns", "exec", self.names[role]] if role in self.names else []
        process = subprocess.Popen(
            [*enter, *program, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip(), f"{argv} did not start"
        return process

    def start_once(self, role: str, program: list[str]) -> None:
        """Start a program unless it runs already."""
        if (role, *program) not in self._once:
            self._once.add((role, *program))
            self.start(role, [], program=program)

    def build(self) -> None:
        """Make the machines."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        for role in self.roles:
            self.sh(role, "ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad")
            self.sh(role, "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        self.wire()
        # As on kernels before 6.5, where an unanswered SYN is repeated after 1, 3 and 7 s.
        syn = "/proc/sys/net/ipv4/tcp_syn_linear_timeouts"
        self.sh("client", f"test ! -e {syn} || echo 0 > {syn}")
        self.server_pem = str(self.authority.server_pem(SERVER4, SERVER6, "control-plane.test"))
        self._start_server()

    def _start_server(self) -> None:
        self._server = self.start("server", ["-m", "tests.network.churn_server", self.server_pem, SERVER4, SERVER6])

    def restart_server(self) -> None:
        """Kill the control plane and start it anew; what arrived before is forgotten."""
        assert self._server is not None
        self._server.kill()
        self._server.communicate()
        self._start_server()

    def wire(self) -> None:
        """Connect the machines."""
        raise NotImplementedError

    def client(
        self, label: str, kind: str, beats: int, *words: str, interval: float = 1.0, python: str = sys.executable
    ) -> Client:
        """Make a client ready to begin."""
        common = ("--url", self.url, "--ca", self.authority.ca_file)
        made = Client(self, label, kind, python, *common, "--beats", str(beats), "--interval", str(interval), *words)
        made.schedule = (beats, interval)
        return made

    def server_stall(self) -> float:
        """Return how late the machine woke the server at worst, in seconds."""
        return float(self._ask_server("stall"))

    def arrived(self) -> list[tuple[str, str, int, float]]:
        """Return what the control plane has seen: path, key, port, time."""
        return [tuple(one) for one in self._ask_server("dump")]

    def _ask_server(self, what: str) -> Any:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(what + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End what runs, delete the namespaces."""
        for process in self._processes:
            process.kill()
            process.communicate()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._folder.cleanup()


class Routed(Lab):
    """client - router with NAT - server."""

    def __init__(self, *, loose: int = 0) -> None:
        super().__init__()
        self.loose = loose

    def wire(self) -> None:
        """Two veth pairs, a default route each, NAT in the router."""
        names = self.names
        for near, device, far, peer in (("client", "up0", "router", "in0"), ("server", "up0", "router", "out0")):
            link = f"ip link add {device} netns {names[near]} type veth peer name {peer} netns {names[far]}"
            subprocess.run(link.split(), check=True)
        self.sh("client", f"ip link set up0 up; ip addr add {CLIENT4}/24 dev up0; ip addr add {CLIENT6}/64 dev up0")
        self.sh("client", f"ip route add default via {ROUTER_IN4}; ip -6 route add default via fd92:1::1")
        for device, own4, own6 in (("in0", ROUTER_IN4, "fd92:1::1"), ("out0", ROUTER_OUT4, "fd92:2::1")):
            add = f"ip addr add {own4}/24 dev {device}; ip addr add {own6}/64 dev {device}"
            self.sh("router", f"ip link set {device} up; {add}")
        self.sh("server", f"ip link set up0 up; ip addr add {SERVER4}/24 dev up0; ip addr add {SERVER6}/64 dev up0")
        self.sh("server", f"ip route add default via {ROUTER_OUT4}; ip -6 route add default via fd92:2::1")
        self.sh("router", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        for role in ("client", "router"):
            self.sh(role, f"echo {self.loose} > /proc/sys/net/netfilter/nf_conntrack_tcp_loose")
        self.sh("router", "nft -f -", NAT.format(snat="masquerade"))

    # What can happen. Each is one change, done when the call returns.

    def nat_forgets(self) -> None:
        """Scenario A: the router's table is flushed; the machine is told nothing."""
        self.sh("router", "conntrack -F 2>&1")

    def firewall_rewritten(self) -> None:
        """Scenario B: the machine's own firewall is rewritten and its table flushed."""
        self.sh("client", "iptables-restore; conntrack -F 2>&1", FIREWALL)

    def firewall_lifted(self) -> None:
        """Undo scenario B."""
        self.sh("client", "nft flush ruleset")

    def own_address_changes(self) -> None:
        """The machine gets another address and loses the one its connections have."""
        self.sh("client", "ip addr flush dev up0 scope global; ip addr add 10.92.1.77/24 dev up0")
        self.sh("client", f"ip route replace default via {ROUTER_IN4}")

    def nat_address_changes(self) -> None:
        """The router takes another address towards the world."""
        other = "10.92.2.99"
        self.sh("router", f"ip addr add {other}/24 dev out0; nft flush chain ip lab out")
        self.sh("router", f'nft add rule ip lab out oifname "out0" snat to {other}; conntrack -F 2>&1')

    def link_flaps(self) -> None:
        """The machine's link goes down and comes back."""
        self.sh("client", "ip link set up0 down; ip link set up0 up")
        self.sh("client", f"ip route replace default via {ROUTER_IN4}")

    def uplink_flaps(self) -> None:
        """The router's uplink goes down and comes back; masquerading forgets its flows."""
        self.sh("router", "ip link set out0 down; ip link set out0 up")

    def rule_changes(self) -> None:
        """The machine's first connection tracking rule is installed (the firewall step of a boot)."""
        self.sh("client", "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Drop all that the router would forward."""
        chain = "add chain inet outage through { type filter hook forward priority -10; policy drop; }"
        self.sh("router", "nft -f -", f"add table inet outage\n{chain}\n")
        try:
            yield
        finally:
            self.sh("router", "nft delete table inet outage")


class Wired(Lab):
    """client - wire with delay, loss and outages - server."""

    roles = ("client", "server")

    def wire(self) -> None:
        """One TUN device in each machine, a program between them."""
        argv = ["-m", "tests.network.churn_wire", self.names["client"], self.names["server"]]
        self._wire = self.start("", argv)
        for role, own4, other4, own6, other6 in (
            ("client", CLIENT4, SERVER4, CLIENT6, SERVER6),
            ("server", SERVER4, CLIENT4, SERVER6, CLIENT6),
        ):
            self.sh(role, f"ip link set wire0 up; ip addr add {own4}/32 dev wire0; ip route add {other4} dev wire0")
            self.sh(role, f"ip -6 addr add {own6}/128 dev wire0; ip -6 route add {other6} dev wire0")

    def set(self, what: str, value: float) -> None:
        """Set `delay` (seconds one way), `loss` (share each way) or `block` (0 or 1)."""
        assert self._wire.stdin is not None
        assert self._wire.stdout is not None
        self._wire.stdin.write(f"{what} {value}\n")
        self._wire.stdin.flush()
        assert self._wire.stdout.readline().strip() == "set"


@contextlib.contextmanager
def laboratory(lab: Any) -> Iterator[Any]:
    """Build, hand out, remove whatever happens."""
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


def run(clients: list[Client], happenings: list[tuple[float, Callable[[], Any]]], *, lead: float = 1.5) -> list[float]:
    """Begin all clients at one moment; at each time (seconds from it) do what happens; return when that was.

    Happenings run in threads of their own, so that news can come while a change is still going on.
    """
    begin = time.time() + lead
    for client in clients:
        client.begin(begin)
    changed: list[float] = []
    with concurrent.futures.ThreadPoolExecutor(len(happenings) or 1) as pool:
        under_way = []
        for at, action in sorted(happenings, key=lambda one: one[0]):
            time.sleep(max(0.0, begin + at - time.time()))
            changed.append(time.time())
            under_way.append(pool.submit(action))
        for future in under_way:
            future.result()
    return changed
