# SPDX-License-Identifier: Apache-2.0
"""systemd's notification socket: ready, alive, stopping. Without systemd nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Tell systemd (sd_notify's datagram); without NOTIFY_SOCKET nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to be told that we live (half its limit), None when it does not."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000 or None
