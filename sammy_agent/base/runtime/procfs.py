# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of memory, file systems and routes: the agent's one reader; parsing is apart from reading.

Three readers of /proc/net/route once had three rules: a route that is down or rejects is the way to nowhere, and the
kernel's own "unreachable default" of IPv6 stands on lo.
"""

from __future__ import annotations

import os
from typing import NamedTuple

MAX_BYTES = 256 * 1024  # of a file: a machine with thousands of interfaces or routes
_ROUTE_UP, _ROUTE_REJECT = 0x1, 0x200  # RTF_UP, RTF_REJECT of <linux/route.h>


class Space(NamedTuple):
    """So much there is, bytes; what is neither used nor available only root may use."""

    total: int
    used: int
    available: int

    @property
    def used_percent(self) -> float:
        """Return the share in use, 0 to 100, as df tells it. ZeroDivisionError for what has no size."""
        return round(100 * self.used / (self.used + self.available), 2)


class Memory(NamedTuple):
    """The machine's memory; swap is None on a kernel without."""

    main: Space
    swap: Space | None


class FileSystem(NamedTuple):
    """A mounted file system; `inodes` is None where it counts none, as btrfs."""

    space: Space
    inodes: Space | None


def read_text(path: str, max_bytes: int = 8192) -> str:
    """Read a file of procfs with few system calls; Python's file objects would cost more than the parsing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, max_bytes)
        # the kernel gives a page or less at a time of a file with many lines
        while 0 < len(data) < max_bytes and (more := os.read(descriptor, max_bytes - len(data))):
            data += more
    finally:
        os.close(descriptor)
    return data.decode("ascii", "replace")


def memory(proc: str = "/proc") -> Memory:
    """Return how much memory is in use. OSError, or ValueError when the kernel does not say."""
    return parse_memory(read_text(f"{proc}/meminfo"))


def parse_memory(text: str) -> Memory:
    """Parse /proc/meminfo. ValueError when it does not tell total and available."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdecimal() and unit == "kB":
            values[name] = int(number) * 1024
    try:
        main = Space(values["MemTotal"], values["MemTotal"] - values["MemAvailable"], values["MemAvailable"])
    except KeyError as error:
        raise ValueError(f"meminfo has no {error.args[0]}") from None
    if "SwapTotal" not in values or "SwapFree" not in values:
        return Memory(main, None)
    return Memory(main, Space(values["SwapTotal"], values["SwapTotal"] - values["SwapFree"], values["SwapFree"]))


def file_system(path: str) -> FileSystem:
    """Return the room on the file system that holds `path`. OSError."""
    found = os.statvfs(path)
    size = found.f_frsize
    space = Space(found.f_blocks * size, (found.f_blocks - found.f_bfree) * size, found.f_bavail * size)
    inodes = Space(found.f_files, found.f_files - found.f_ffree, found.f_favail) if found.f_files else None
    return FileSystem(space, inodes)


def resident_bytes(proc: str = "/proc") -> int:
    """Return this process's resident memory. OSError, or ValueError when the kernel does not say."""
    fields = read_text(f"{proc}/self/statm").split()
    if len(fields) < 2:
        raise ValueError("statm has no resident size")
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def default_route_links(net: str = "/proc/thread-self/net") -> tuple[str, ...]:
    """Return the links that carry a default route, IPv4's before IPv6's, the preferred first.

    :param net: the network namespace's folder; by default this thread's.
    """
    texts = []
    for name in ("route", "ipv6_route"):
        try:
            texts.append(read_text(f"{net}/{name}", MAX_BYTES))
        except OSError:  # a kernel without IPv6
            texts.append("")
    return parse_default_route_links(*texts)


def parse_default_route_links(route4: str, route6: str) -> tuple[str, ...]:
    """Parse /proc/net/route and /proc/net/ipv6_route; a line that cannot be understood is no route."""
    found: list[str] = []
    for words in map(str.split, route4.splitlines()[1:]):
        if len(words) > 7 and words[1] == words[7] == "00000000" and _is_usable(words[3]):
            found.append(words[0])
    for words in map(str.split, route6.splitlines()):
        if len(words) > 9 and words[0] == "0" * 32 and words[1] == "00" and _is_usable(words[8]):
            found.append(words[9])
    return tuple(name for name in dict.fromkeys(found) if name != "lo")


def _is_usable(flags: str) -> bool:
    try:
        return int(flags, 16) & (_ROUTE_UP | _ROUTE_REJECT) == _ROUTE_UP
    except ValueError:
        return False
