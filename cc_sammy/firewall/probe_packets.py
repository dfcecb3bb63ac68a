# SPDX-License-Identifier: Apache-2.0
"""SYN packets from any source address, and which of them were answered: what the dry run sees with."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Sequence
from types import TracebackType

from cc_sammy.firewall.model.policy import Policy

ETH_P_ALL = 0x0003
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
FIRST_SOURCE_PORT = 20000
TIMEOUT, RETRY_INTERVAL = 2.0, 0.01
# networks set aside for documentation: no real client has one of them
DOCUMENTATION_ADDRESSES = {
    4: ("203.0.113.7", "198.51.100.7", "192.0.2.7"),
    6: ("2001:db8:7::7", "3fff::7", "2001:db8::9"),
}


def pick_disallowed_source(policy: Policy, version: int) -> str | None:
    """Return an address that the policy does not allow; None when all the candidates are allowed."""
    taken = [] if policy.allow_any else _networks(policy, version)
    taken += policy.ssh4 if version == 4 else policy.ssh6
    candidates = (ipaddress.ip_address(text) for text in DOCUMENTATION_ADDRESSES[version])
    return next((str(one) for one in candidates if not any(one in network for network in taken)), None)


def pick_allowed_source(policy: Policy, version: int) -> str | None:
    """Return an address that the policy lets in and that a wire may carry, if there is one."""
    for network in _networks(policy, version):
        within = network.network_address + (1 if network.num_addresses > 2 else 0)
        documented = (ipaddress.ip_address(text) for text in DOCUMENTATION_ADDRESSES[version])
        for one in (within, *(one for one in documented if one in network)):
            odd = one.is_loopback or one.is_multicast or one.is_reserved or one.is_link_local
            if not (odd or one.is_unspecified or (version == 4 and int(one) < 1 << 24)):
                return str(one)
    return None


def _networks(policy: Policy, version: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return list(policy.allow4) if version == 4 else list(policy.allow6)


def syn(source: str, target: str, source_port: int, port: int) -> tuple[int, bytes]:
    """Return the family and the IP packet of a SYN, checksums included."""
    first, second = ipaddress.ip_address(source), ipaddress.ip_address(target)
    header = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    pseudo = first.packed + second.packed + struct.pack("!IHBB", len(header), 0, 0, socket.IPPROTO_TCP)
    header = header[:16] + struct.pack("!H", checksum(pseudo + header)) + header[18:]
    if first.version == 6:
        return 6, struct.pack("!IHBB", 6 << 28, len(header), socket.IPPROTO_TCP, 64) + pseudo[:32] + header
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(header), 1, 0, 64, socket.IPPROTO_TCP, 0) + pseudo[:8]
    return 4, outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:] + header


def checksum(data: bytes) -> int:
    """Return the internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answered_port(frame: bytes) -> int | None:
    """Return the destination port of an ethernet frame that carries TCP; None for any other."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETHERTYPE[4] and len(frame) >= 54 and frame[23] == socket.IPPROTO_TCP:
        return int.from_bytes(frame[36:38], "big")
    if kind == ETHERTYPE[6] and len(frame) >= 74 and frame[20] == socket.IPPROTO_TCP:
        return int.from_bytes(frame[56:58], "big")
    return None


class PacketProbe:
    """One end of a veth pair, used by hand; `peer` is the other end's hardware address."""

    def __init__(self, device: str, peer: str) -> None:
        # No protocol until it is bound: moving a hook from all devices to one waits for all CPUs, 15 ms each time.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((device, ETH_P_ALL))
        self._ethernet = bytes.fromhex(peer.replace(":", "")) + bytes.fromhex("020000000009")
        self._next = FIRST_SOURCE_PORT

    def __enter__(self) -> PacketProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def wait_until_answered(self, source: str, target: str, port: int) -> bool:
        """Repeat a SYN until it is answered; tell whether it was. A new wire drops what is sent before it is ready."""
        deadline = time.monotonic() + TIMEOUT
        while not self.answered(source, target, [port], seconds=RETRY_INTERVAL)[port]:
            if time.monotonic() > deadline:
                return False
        return True

    def answered(
        self, source: str, target: str, ports: Sequence[int], last: int | None = None, seconds: float = TIMEOUT
    ) -> dict[int, bool]:
        """Send a SYN to each port and tell which were answered.

        :param last: the port whose answer ends the waiting: packets keep their order. Else all are waited for.
        :param seconds: the longest wait.
        """
        asked: dict[int, int] = {}
        for port in ports:
            family, packet = syn(source, target, self._next, port)
            self._socket.send(self._ethernet + ETHERTYPE[family].to_bytes(2, "big") + packet)
            asked[self._next] = port
            self._next += 1
        found = dict.fromkeys(ports, False)
        deadline = time.monotonic() + seconds
        while not (found[last] if last is not None else all(found.values())):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._socket.settimeout(left)
            try:
                frame, origin = self._socket.recvfrom(2048)
            except TimeoutError:
                break
            port_back = answered_port(frame)
            if origin[2] != socket.PACKET_OUTGOING and port_back in asked:
                found[asked[port_back]] = True
        return found
