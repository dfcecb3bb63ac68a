# SPDX-License-Identifier: Apache-2.0
"""The dry run's SYNs, taken apart again byte by byte, and which answers count; the wire is a pair of sockets."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_sammy.firewall import probe_packets
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.firewall.probe_packets import PacketProbe, pick_allowed_source, pick_disallowed_source, syn

SYN, RST_ACK = 0x02, 0x14
PORTS = st.integers(1, 65535)


def ones_sum(data: bytes) -> int:
    """Return the sum that is 0xFFFF where a checksum over the data is right (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def taken_apart(packet: bytes) -> tuple[str, str, bytes]:
    """Return source, target and TCP segment of an IP packet whose header is in order."""
    version = packet[0] >> 4
    if version == 4:
        assert packet[0] == 0x45 and ones_sum(packet[:20]) == 0xFFFF, "the header's checksum"
        assert struct.unpack("!H", packet[2:4])[0] == len(packet) and packet[9] == socket.IPPROTO_TCP
        at, size = 12, 4
    else:
        assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40 and packet[6] == socket.IPPROTO_TCP
        at, size = 8, 16
    source, target = packet[at : at + size], packet[at + size : at + 2 * size]
    segment = packet[at + 2 * size :]
    pseudo = source + target + struct.pack("!IHBB", len(segment), 0, 0, socket.IPPROTO_TCP)
    assert ones_sum(pseudo + segment) == 0xFFFF, "TCP's checksum, over the addresses too"
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return socket.inet_ntop(family, source), socket.inet_ntop(family, target), segment


@given(st.one_of(st.tuples(*[st.ip_addresses(v=4)] * 2), st.tuples(*[st.ip_addresses(v=6)] * 2)), PORTS, PORTS)
def test_a_syn_is_a_packet_that_every_receiver_takes(ends: tuple[Any, Any], source_port: int, port: int) -> None:
    family, packet = syn(str(ends[0]), str(ends[1]), source_port, port)
    assert family == ends[0].version == packet[0] >> 4
    source, target, segment = taken_apart(packet)
    assert (ipaddress.ip_address(source), ipaddress.ip_address(target)) == ends
    assert struct.unpack("!HH", segment[:4]) == (source_port, port)
    assert segment[13] == SYN and segment[12] >> 4 == 5 and len(segment) == 20


def test_the_checksum_is_the_internets() -> None:
    assert probe_packets.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071's example
    assert probe_packets.checksum(b"\xff\xff" * 3) == 0


def ethernet(packet: bytes, kind: int) -> bytes:
    return b"\x02" * 12 + kind.to_bytes(2, "big") + packet


@pytest.mark.parametrize(("kind", "source", "target"), [(0x0800, "192.0.2.1", "192.0.2.2"), (0x86DD, "::1", "::2")])
def test_an_answer_is_a_whole_tcp_segment_and_nothing_else(kind: int, source: str, target: str) -> None:
    _, packet = syn(source, target, 8443, 20007)
    frame = ethernet(packet, kind)
    assert probe_packets.answered_port(frame) == 20007
    assert probe_packets.answered_port(frame[:-1]) is None, "cut short"
    assert probe_packets.answered_port(ethernet(packet, 0x0806)) is None, "arp"
    at = 14 + (9 if kind == 0x0800 else 6)
    assert probe_packets.answered_port(frame[:at] + bytes([socket.IPPROTO_ICMP]) + frame[at + 1 :]) is None
    assert probe_packets.answered_port(b"") is None


def policy(*allow: str, **more: Any) -> Policy:
    return Policy(8443, *networks.parse(allow, "test"), **more)


@pytest.mark.parametrize(
    ("allow", "version", "stranger"),
    [
        (["10.0.0.0/8"], 4, "203.0.113.7"),
        (["203.0.113.0/24"], 4, "198.51.100.7"),
        (["203.0.113.0/24", "198.51.100.0/24", "192.0.2.7/32"], 4, None),
        (["0.0.0.0/0"], 4, None),
        (["0.0.0.0/0"], 6, "2001:db8:7::7"),
        (["2001:db8::/32"], 6, "3fff::7"),
        (["::/0"], 6, None),
    ],
)
def test_a_stranger_is_nobody_who_is_allowed(allow: list[str], version: int, stranger: str | None) -> None:
    assert pick_disallowed_source(policy(*allow), version) == stranger


def test_who_may_reach_ssh_is_no_stranger_either_and_where_all_may_come_in_anyone_else_is() -> None:
    ssh4, ssh6 = networks.parse(["203.0.113.0/24", "2001:db8:7::/48"], "test")
    one = Policy(8443, allow_any=True, ssh="networks", ssh4=ssh4, ssh6=ssh6)
    assert (pick_disallowed_source(one, 4), pick_disallowed_source(one, 6)) == ("198.51.100.7", "3fff::7")


@pytest.mark.parametrize(
    ("allow", "version", "allowed"),
    [
        (["10.1.0.0/24"], 4, "10.1.0.1"),
        (["192.0.2.9/32"], 4, "192.0.2.9"),
        (["10.1.0.4/31"], 4, "10.1.0.4"),
        (["127.0.0.0/8", "10.1.0.0/24"], 4, "10.1.0.1"),
        (["224.0.0.0/4"], 4, None),
        (["240.0.0.0/4"], 4, None),
        (["169.254.0.0/16"], 4, None),
        (["0.0.0.0/0"], 4, "203.0.113.7"),
        (["0.0.0.0/8"], 4, None),
        (["fd01::/64"], 6, "fd01::1"),
        (["::1/128"], 6, None),
        (["fe80::/10"], 6, None),
        (["::/0"], 6, "2001:db8:7::7"),
        (["10.0.0.0/8"], 6, None),
    ],
)
def test_an_allowed_source_is_one_that_a_wire_may_carry(allow: list[str], version: int, allowed: str | None) -> None:
    assert pick_allowed_source(policy(*allow), version) == allowed


class Wire:
    """The socket of a probe: what it sends `machine` answers; frames come back with their origin's kind of packet."""

    def __init__(self, machine: Callable[[int], list[tuple[bytes, int]]]) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kinds: list[int] = []
        self.sent: list[bytes] = []
        self.bound: tuple[str, int] | None = None
        self._machine = machine

    def bind(self, address: tuple[str, int]) -> None:
        self.bound = address

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        _, target, segment = taken_apart(frame[14:])
        source_port, port = struct.unpack("!HH", segment[:4])
        for said, kind in self._machine(port):
            answer = said
            if said == b"answer":
                family, packet = syn(target, "203.0.113.7" if "." in target else "3fff::7", port, source_port)
                answer = ethernet(packet, probe_packets.ETHERTYPE[family])
            self.kinds.append(kind)
            self.theirs.send(answer)

    def settimeout(self, seconds: float) -> None:
        self.ours.settimeout(seconds)

    def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
        frame = self.ours.recv(size)
        return frame, ("probe0", 0x0800, self.kinds.pop(0), 1, b"")

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


ANSWER = (b"answer", socket.PACKET_HOST)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[PacketProbe, Wire]]]:
    """Return a maker of a probe whose wire ends at a machine: port -> the frames that come back."""
    wires: list[Wire] = []

    def make(machine: Callable[[int], list[tuple[bytes, int]]]) -> tuple[PacketProbe, Wire]:
        wires.append(Wire(machine))
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", lambda *kind: wires[-1])
            return PacketProbe("probe0", "02:00:00:00:00:01"), wires[-1]

    yield make
    for wire in wires:
        wire.close()


@pytest.mark.parametrize(("source", "target"), [("203.0.113.7", "198.18.0.1"), ("3fff::7", "2001:2::1")])
def test_what_is_answered_is_open_and_the_last_answer_ends_the_waiting(
    probe: Callable[..., tuple[PacketProbe, Wire]], source: str, target: str
) -> None:
    one, wire = probe(lambda port: [] if port == 8443 else [ANSWER])
    assert one.answered(source, target, [8443, 22, 1], last=1, seconds=30.0) == {8443: False, 22: True, 1: True}
    assert wire.bound == ("probe0", probe_packets.ETH_P_ALL)
    assert {frame[:12].hex() for frame in wire.sent} == {"020000000001" + "020000000009"}
    ports = [struct.unpack("!H", frame[14:][-20:-18])[0] for frame in wire.sent]
    assert len(set(ports)) == 3, "each SYN from a port of its own"


def test_without_a_last_port_all_are_waited_for_and_silence_ends_with_the_time(
    probe: Callable[..., tuple[PacketProbe, Wire]],
) -> None:
    one, _ = probe(lambda port: [ANSWER])
    assert one.answered("203.0.113.7", "198.18.0.1", [22, 8443], seconds=30.0) == {22: True, 8443: True}
    silent, _ = probe(lambda port: [])
    assert silent.answered("203.0.113.7", "198.18.0.1", [22], seconds=0.02) == {22: False}
    assert silent.answered("203.0.113.7", "198.18.0.1", [22], seconds=0.0) == {22: False}


def test_our_own_packets_and_others_are_no_answers(probe: Callable[..., tuple[PacketProbe, Wire]]) -> None:
    """A packet socket shows what it sends as well."""
    stray = ethernet(syn("198.18.0.1", "203.0.113.7", 22, 4242)[1], 0x0800)
    one, _ = probe(
        lambda port: [(b"answer", socket.PACKET_OUTGOING), (stray, socket.PACKET_HOST), (b"arp", socket.PACKET_HOST)]
    )
    assert one.answered("203.0.113.7", "198.18.0.1", [22], seconds=0.05) == {22: False}


def test_a_new_wire_is_asked_until_it_answers_but_not_for_ever(
    probe: Callable[..., tuple[PacketProbe, Wire]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def third(port: int) -> list[tuple[bytes, int]]:
        asked.append(port)
        return [ANSWER] if len(asked) >= 3 else []

    one, _ = probe(third)
    assert one.wait_until_answered("203.0.113.7", "198.18.0.1", 1) and asked == [1, 1, 1]
    monkeypatch.setattr(probe_packets, "TIMEOUT", 0.03)
    dead, _ = probe(lambda port: [])
    assert not dead.wait_until_answered("203.0.113.7", "198.18.0.1", 1)


def test_the_socket_is_closed_with_the_block(probe: Callable[..., tuple[PacketProbe, Wire]]) -> None:
    one, wire = probe(lambda port: [])
    with one as entered:
        assert entered is one
    assert wire.ours.fileno() == -1
