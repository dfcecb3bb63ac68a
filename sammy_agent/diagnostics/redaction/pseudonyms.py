# SPDX-License-Identifier: Apache-2.0
"""Consistent pseudonyms for hosts and addresses: who talks to whom stays visible, who they are does not.

Numbered in order of first appearance, so nothing can be derived from them, and nothing is stored. Loopback, multicast,
documentation's addresses and the clouds' metadata address stay.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.node import config

IPV4 = re.compile(r"(?<![\w.+~-])(?:\d{1,3}\.){3}\d{1,3}(?![\w+~-]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?![\w:])")
MAC = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])")
IN_URL = re.compile(r"(?<=://)(?:[^\s/@\"']*@)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)")
IN_LOG = re.compile(
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? ([\w.-]+) [^ ]+: "
)  # a machine's name of before, too
KEPT_V6 = tuple(map(ipaddress.IPv6Network, ("::/127", "2001:db8::/32", "ff00::/8")))
KEPT_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        ("127.0.0.0/8", "0.0.0.0/32", "255.0.0.0/8", "224.0.0.0/4", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
         "169.254.169.254/32"),
    )
)  # fmt: skip
KEPT_MACS = ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff")
WHOLE_NAME = r"(?<![\w.-]){}(?![\w-]|\.\w)"
# Names that are also words of every log; the machine that bears one stays as it is.
NEVER_REPLACED = {
    "localhost",
    "localhost.localdomain",
    "debian",
    "ubuntu",
    "node",
    "sammy",
    "agent",
    "docker",
    "none",
    "host",
}


def for_host(paths: Paths) -> Pseudonyms:
    """Return the pseudonyms for this machine, its own names known beforehand."""
    names = [socket.gethostname(), socket.getfqdn(), (files.read(paths.under_root("/etc/hostname")) or "").strip()]
    for line in (files.read(paths.under_root("/etc/hosts")) or "").splitlines():
        names += line.partition("#")[0].split()[1:]
    for line in (files.read(paths.under_root("/etc/resolv.conf")) or "").splitlines():
        if line.startswith(("search", "domain")):
            names += line.split()[1:]
    try:
        loaded = config.load(paths)
    except (AgentError, OSError):
        loaded = None
    if loaded is not None:
        names += [loaded.node_id, urlsplit(loaded.url).hostname or ""]
    return Pseudonyms(names)


class Pseudonyms:
    """Replaces each host and address by its pseudonym.

    :param names: hosts that are known beforehand; those in URLs are learnt on the way.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._given: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._hosts: re.Pattern[str] | None = None
        self._names: set[str] = set()
        for name in names:
            self._learn(name)

    def __repr__(self) -> str:
        return f"<Pseudonyms {', '.join(f'{count} {kind}' for kind, count in self._counts.items()) or 'none yet'}>"

    def replace(self, line: str) -> str:
        """Return the line with pseudonyms."""
        if "://" in line:
            for match in IN_URL.finditer(line):
                self._learn(match[1])
        if (said := IN_LOG.match(line)) is not None:
            self._learn(said[1])
        if ":" in line:
            line = MAC.sub(lambda hit: self._mac(hit[0]), line)
            line = IPV6.sub(lambda hit: self._address(hit[0], "ipv6"), line)
        line = IPV4.sub(lambda hit: self._address(hit[0], "ipv4"), line)
        return self._hosts.sub(lambda hit: self._pseudonym("host", hit[0].lower()), line) if self._hosts else line

    def _learn(self, name: str) -> None:
        name = name.lower().rstrip(".")
        if name in self._names or name in NEVER_REPLACED or len(name) < 3 or IPV4.fullmatch(name):
            return
        if ":" in name or name.startswith("ip6-"):
            return
        self._names.add(name)
        longest_first = sorted(self._names, key=len, reverse=True)
        whole = "|".join(WHOLE_NAME.format(re.escape(one)) for one in longest_first)
        self._hosts = re.compile(f"(?i:{whole})")

    def _pseudonym(self, kind: str, what: str) -> str:
        found = self._given.get(what)
        if found is None:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            found = self._given[what] = f"{kind}-{self._counts[kind]}"
        return found

    def _mac(self, text: str) -> str:
        return text if text.lower() in KEPT_MACS else self._pseudonym("mac", text.lower())

    def _address(self, text: str, kind: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text  # a version, a time
        kept = KEPT_V4 if kind == "ipv4" else KEPT_V6
        return text if any(address in network for network in kept) else self._pseudonym(kind, str(address))
