# SPDX-License-Identifier: Apache-2.0
"""sd_notify: ready, watchdog and status messages to systemd. Without systemd they do nothing."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send a message to systemd; without NOTIFY_SOCKET do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_seconds() -> float | None:
    """Return the interval in which systemd's watchdog is to be fed (half its limit), None without a watchdog."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000 or None
