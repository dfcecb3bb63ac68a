# SPDX-License-Identifier: Apache-2.0
"""A wire with delay, loss and outages between two namespaces, for kernels without netem: two TUN devices, one loop.

Runs as a program. Lines on its input set it: `delay SECONDS` (one way), `loss SHARE` (each way), `block 0|1`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
CLONE_NEWNET = 0x40000000


def tun(namespace: str, device: str) -> int:
    """Open a TUN device inside a namespace; the descriptor works from anywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    number = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    return number


def main(near: str, far: str) -> None:
    """Carry packets until the input ends."""
    random.seed(7)
    ends = (tun(near, "wire0"), tun(far, "wire0"))
    other = dict(zip(ends, reversed(ends), strict=True))
    state = {"delay": 0.0, "loss": 0.0, "block": 0.0}
    order = itertools.count()
    under_way: list[tuple[float, int, int, bytes]] = []
    poll = select.poll()
    for number in (*ends, sys.stdin.fileno()):
        poll.register(number, select.POLLIN)
    print("carrying", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) * 1000 if under_way else None
        for number, _ in poll.poll(wait):
            if number == sys.stdin.fileno():
                line = sys.stdin.readline().split()
                if not line:
                    return
                state[line[0]] = float(line[1])
                print("set", flush=True)
                continue
            for _ in range(64):
                try:
                    packet = os.read(number, 65536)
                except BlockingIOError:
                    break
                if not state["block"] and random.random() >= state["loss"]:
                    due = time.monotonic() + state["delay"]
                    heapq.heappush(under_way, (due, next(order), other[number], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, number, packet = heapq.heappop(under_way)
            with contextlib.suppress(OSError):
                os.write(number, packet)


if __name__ == "__main__":
    main(*sys.argv[1:])
