# SPDX-License-Identifier: Apache-2.0
"""What is parsed of texts that kernels really wrote, and of such that none should write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sammy_agent.base.runtime import procfs
from sammy_agent.base.runtime.procfs import Space, parse_default_route_links, parse_memory

RECORDED = Path(__file__).with_name("proc")
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ZEROS, LINK_LOCAL = "0" * 32, "fe80" + "0" * 28


def route4(link: str, flags: str = "0003", destination: str = "00000000", mask: str = "00000000") -> str:
    return f"{link}\t{destination}\t010200C0\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n"


def route6(link: str, flags: str = "00000003", destination: str = ZEROS, length: str = "00") -> str:
    return f"{destination} {length} {ZEROS} 00 {LINK_LOCAL} 00000400 00000001 00000000 {flags} {link:>8}\n"


def test_memory_of_a_machine_without_swap() -> None:
    main, swap = parse_memory((RECORDED / "meminfo").read_text())
    assert main == Space(24684084 * 1024, (24684084 - 23850484) * 1024, 23850484 * 1024)
    assert main.used_percent == 3.38
    assert swap == Space(0, 0, 0)


@pytest.mark.parametrize("text", ["", "garbage", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n",
                                  "MemTotal 5 kB\nMemAvailable 1 kB\n", "MemTotal:\nMemAvailable:\n"])  # fmt: skip
def test_memory_that_is_not_told_is_an_error_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="meminfo has no Mem"):
        parse_memory(text)


def test_a_kernel_without_swap_and_lines_of_other_kinds_hurt_nobody() -> None:
    main, swap = parse_memory("nonsense\nHugePages_Total:    7\nMemTotal: 1000 kB\n:\nMemAvailable: 600 kB\nX: -1 kB\n")
    assert (main.used_percent, swap) == (40.0, None)


def test_the_default_routes_of_a_machine() -> None:
    texts = [(RECORDED / name).read_text() for name in ("route", "ipv6_route")]
    assert parse_default_route_links(*texts) == ("eth0",)


def test_links_with_a_default_route_ipv4_and_the_preferred_first() -> None:
    text4 = HEAD + route4("wwan0") + route4("eth0") + route4("docker0", "0001", "000011AC", "0000FFFF")
    text6 = route6("wlan0") + route6("eth0") + route6("lo", "00200200") + route6("eth1", "00000001", LINK_LOCAL, "40")
    assert parse_default_route_links(text4, text6) == ("wwan0", "eth0", "wlan0")
    assert parse_default_route_links("", "") == ()


@pytest.mark.parametrize("flags", ["0002", "0000", "0200", "0201", "0203", "", "zz"])
def test_a_route_that_is_down_or_rejects_leads_nowhere(flags: str) -> None:
    assert parse_default_route_links(HEAD + route4("eth0", flags or "-"), route6("eth1", flags or "-")) == ()


@pytest.mark.parametrize("text", ["garbage\n", "\n\n", "a b\n", HEAD, f"{ZEROS} 00\n", "eth0 00000000 1 0003 0 0 0\n"])
def test_lines_that_are_no_routes_are_none(text: str) -> None:
    assert parse_default_route_links(text + route4("eth0"), text + route6("eth1")) == ("eth0", "eth1")


def test_a_half_default_route_as_vpns_set_it_is_none() -> None:
    assert parse_default_route_links(HEAD + route4("tun0", mask="00000080"), "") == ()


def test_without_ipv6_there_are_the_routes_of_ipv4(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(HEAD + route4("eth0"))
    assert procfs.default_route_links(str(tmp_path)) == ("eth0",)
    assert procfs.default_route_links(str(tmp_path / "nowhere")) == ()


def test_a_long_file_of_procfs_is_read_whole_and_a_bound_holds() -> None:
    """The kernel gives a page at a time of a file with many lines."""
    mapped = [bytearray(os.urandom(1)) for _ in range(10)]
    text = procfs.read_text("/proc/self/smaps", procfs.MAX_BYTES)
    assert mapped and len(text) > 3 * 4096 and len(procfs.read_text("/proc/self/smaps", 5000)) == 5000
    with open("/proc/self/smaps", encoding="ascii") as file:
        assert text.count("Rss:") == pytest.approx(file.read(procfs.MAX_BYTES).count("Rss:"), abs=5)


def test_this_machine() -> None:
    assert 0 < procfs.memory().main.used_percent < 100
    space, inodes = procfs.file_system("/")
    found = os.statvfs("/")
    assert space.total == found.f_blocks * found.f_frsize and 0 <= space.used_percent <= 100
    assert inodes is None or inodes.total == found.f_files
    assert 1e6 < procfs.resident_bytes() < 1e10
    with pytest.raises(FileNotFoundError):
        procfs.file_system("/no/such/folder")
    with pytest.raises(ZeroDivisionError):
        assert Space(0, 0, 0).used_percent
