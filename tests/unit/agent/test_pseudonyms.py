# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for hosts and addresses: the same for the same, nothing to compute back, and what everybody knows stays."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.debug_package import builder
from sammy_agent.diagnostics.debug_package.members import Member
from sammy_agent.diagnostics.redaction.pseudonyms import KEPT_V4, KEPT_V6, Pseudonyms
from tests.unit.agent.test_debug_package import opened, shell


def test_who_talks_to_whom_stays_visible() -> None:
    given = Pseudonyms(["node-7", "node-7.corp.lan"])
    line = given.replace
    assert line("node-7 sshd: from 10.1.2.3 port 22") == "host-1 sshd: from ipv4-1 port 22"
    assert line("node-7.corp.lan is 10.1.2.4/24, not 10.1.2.3:443") == "host-2 is ipv4-2/24, not ipv4-1:443"
    assert line("link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff") == "link/ether mac-1 brd ff:ff:ff:ff:ff:ff"
    assert line("inet6 fe80::5054:ff:fe12:3456/64 scope link") == "inet6 ipv6-1/64 scope link"
    assert line("[2a01:4f8::1]:443 and 2A01:4f8:0::1") == "[ipv6-2]:443 and ipv6-2"
    assert line("GET https://sam.example.org:8787/api 200") == "GET https://host-3:8787/api 200"
    assert line("sam.example.org resolves") == "host-3 resolves"
    assert line("Nov 24 10:46:49.123456 old-name kernel: x") == "Nov 24 10:46:49.123456 host-4 kernel: x"
    assert repr(given) == "<Pseudonyms 2 ipv4, 4 host, 1 mac, 2 ipv6>"


@pytest.mark.parametrize(
    "line",
    [
        "127.0.0.1 localhost ::1 ip6-localhost 0.0.0.0:22 [::]:22 255.255.255.0 224.0.0.1 ff02::1",
        "192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::7 169.254.169.254",
        "libfoo 1.2.3.4-5 version v10.0.0.1 10.0.0.1+dfsg 1.2.3.4.5",
        "Nov 24 10:46:49 at 10:46:49.123456 took 00:00:01",
        "http://localhost/debian library/debian:12",
        "nf_tables: chain input { type filter hook input priority 0; }",
        "std::vector systemd::unit 2026-11-24T10:46:49Z",
    ],
)
def test_what_is_nobodys_stays(line: str) -> None:
    assert Pseudonyms(["node-7"]).replace(line) == line


@given(st.lists(st.ip_addresses(), min_size=1, max_size=20))
def test_addresses_are_gone_and_the_same_is_the_same(
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    given = Pseudonyms()
    seen: dict[str, str] = {}
    for address in addresses:
        word = given.replace(f"from {address} to").split()[1]
        kept = any(address in network for network in (KEPT_V4 if address.version == 4 else KEPT_V6))
        assert (word == str(address)) is kept
        assert seen.setdefault(str(address), word) == word
    assert len(set(seen.values())) == len(seen)


def test_a_package_with_stand_ins(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path / "root"))
    for path, text in (
        ("/etc/sammy/agent.json", json.dumps({"node_id": "falcon-9", "control_plane_url": "https://sam.falcon.corp"})),
        ("/etc/hosts", "127.0.0.1 localhost\n10.9.9.9 bastion.falcon.corp bastion\n"),
    ):
        Path(paths.under_root(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(paths.under_root(path)).write_text(text)
    said = "falcon-9 asks sam.falcon.corp by bastion at 10.9.9.9, token=abc-secret-1"
    members: list[Member] = [shell("said.txt", f"echo '{said}'"), shell("again.txt", "echo 10.9.9.9 falcon-9")]
    builder.build(str(tmp_path / "p.tar.gz"), paths, members=members, with_pseudonyms=True)
    held = opened(tmp_path / "p.tar.gz")
    words = held["said.txt"].split()
    assert held["again.txt"].split() == [words[6].rstrip(","), words[0]]
    for name, text in held.items():
        assert not any(one in text for one in ("falcon", "bastion", "10.9.9.9", "abc-secret")), name
    assert json.loads(held["manifest.json"])["pseudonyms"] is True
