# SPDX-License-Identifier: Apache-2.0
"""What the kernel's change messages mean for connections; nothing here does I/O.

Standard library only: we need three headers and a few attributes of rtnetlink, and no request at all; pyroute2 would
bring the messages, which are the small part, and not the decision. Most messages are no change: DHCP and router
advertisements repeat what is known, and containers come and go on links of their own. So each message is compared
with the last one on the same thing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

# <linux/rtnetlink.h>: link, IPv4 address, route and rule, IPv6 address, route and rule.
ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
NFNLGRP_NFTABLES = 7
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 16, 17, 20, 21, 24, 25, 32, 33
_NFT_NEWGEN = (10 << 8) | 15  # once a committed transaction
_UP_BITS = 0x1 | 0x40 | 0x10000  # IFF_UP, IFF_RUNNING, IFF_LOWER_UP
_CONTAINER_LINKS = ("veth", "docker", "br-", "virbr", "vnet", "cni", "flannel", "cali", "lxc", "podman", "tap")
_HEADER = struct.Struct("=IHHII")


class NetlinkMessage(NamedTuple):
    """One netlink message without its header."""

    kind: int
    body: bytes


class Change(NamedTuple):
    """Something that may have cut connections; `affects_routing`: links, addresses or routes, not only the firewall."""

    reason: str
    affects_routing: bool


def messages(data: bytes) -> Iterator[NetlinkMessage]:
    """Split what one recv gave; a message cut short ends it."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield NetlinkMessage(kind, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attributes(body: bytes, start: int) -> dict[int, bytes]:
    """Return the attributes behind a fixed part of `start` bytes."""
    found = {}
    offset = start
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4 or offset + length > len(body):
            break
        found[kind & 0x3FFF] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Filter:
    """Keeps what was last said of each link, address and route, and tells what is news.

    `default_links` returns the names of the links that carry a default route now; `name_of` the name of a link's
    index, or "".
    """

    def __init__(self, default_links: Callable[[], frozenset[str]], name_of: Callable[[int], str]) -> None:
        self._read_default_links, self._name_of = default_links, name_of
        self._default_links = default_links()
        self._names: dict[int, str] = {}
        self._known: dict[tuple[object, ...], tuple[object, ...]] = {}

    def changes(self, data: bytes) -> list[Change]:
        """Return the news in what one recv of the route socket gave."""
        before = self._default_links
        if any(message.kind in (_NEWROUTE, _DELROUTE) for message in messages(data)):
            self._default_links = self._read_default_links()
        # A link counts as ours also when its default route is just gone.
        ours = before | self._default_links
        found = [change for message in messages(data) if (change := self._change(message, ours))]
        if len(self._known) > 10_000:  # a router with a full table: forget, at the cost of one needless remount
            self._known.clear()
        return found

    def _change(self, message: NetlinkMessage, ours: frozenset[str]) -> Change | None:
        kind, body = message
        if kind in (_NEWLINK, _DELLINK) and len(body) >= 16:
            return self._link(kind, body, ours)
        if kind in (_NEWADDR, _DELADDR) and len(body) >= 8:
            return self._address(kind, body, ours)
        if kind in (_NEWROUTE, _DELROUTE) and len(body) >= 12:
            return self._route(kind, body, ours)
        if kind in (_NEWRULE, _DELRULE):
            return Change("a routing rule changed", affects_routing=True)
        return None

    def _link(self, kind: int, body: bytes, ours: frozenset[str]) -> Change | None:
        index, flags = struct.unpack_from("=iI", body, 4)
        parts = attributes(body, 16)
        name = parts.get(3, b"").split(b"\0")[0].decode(errors="replace")
        self._names[index] = name
        state = (flags & _UP_BITS, parts.get(16))
        if not self._is_new(("link", index), state, gone=kind == _DELLINK) or self._is_container_link(index, ours):
            return None
        return Change(f"link {name} went away" if kind == _DELLINK else f"link {name} changed", affects_routing=True)

    def _address(self, kind: int, body: bytes, ours: frozenset[str]) -> Change | None:
        family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        parts = attributes(body, 8)
        key = ("address", family, index, prefix, parts.get(2) or parts.get(1))
        if not self._is_new(key, (), gone=kind == _DELADDR) or self._is_container_link(index, ours):
            return None
        done = "lost" if kind == _DELADDR else "got"
        return Change(f"link {self._name(index)} {done} an address", affects_routing=True)

    def _route(self, kind: int, body: bytes, ours: frozenset[str]) -> Change | None:
        parts = attributes(body, 12)
        index = struct.unpack("=I", parts[4])[0] if len(parts.get(4, b"")) == 4 else 0
        # flags and lifetimes (cacheinfo, attribute 12) change with every router advertisement
        key = ("route", body[:8], parts.get(1), parts.get(4), parts.get(5), parts.get(6), parts.get(15))
        if not self._is_new(key, (), gone=kind == _DELROUTE) or (index and self._is_container_link(index, ours)):
            return None
        return Change(f"a route by {self._name(index)} changed" if index else "a route changed", affects_routing=True)

    def _is_new(self, key: tuple[object, ...], value: tuple[object, ...], *, gone: bool) -> bool:
        if gone:
            self._known.pop(key, None)
            return True
        old = self._known.get(key)
        self._known[key] = value
        return old != value

    def _name(self, index: int) -> str:
        if index not in self._names:
            self._names[index] = self._name_of(index)
        return self._names[index] or str(index)

    def _is_container_link(self, index: int, ours: frozenset[str]) -> bool:
        """Whether a link is a container's and carries no default route."""
        return self._name(index).startswith(_CONTAINER_LINKS) and self._name(index) not in ours


def firewall_changes(data: bytes) -> list[Change]:
    """Return the news in what one recv of the nftables socket gave."""
    if any(message.kind == _NFT_NEWGEN for message in messages(data)):
        return [Change("the firewall's rules changed", affects_routing=False)]
    return []
