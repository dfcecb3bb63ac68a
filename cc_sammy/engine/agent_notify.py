# SPDX-License-Identifier: Apache-2.0
"""Notifies the agent's control socket that a step changed the network, best effort."""

from __future__ import annotations

import threading


def notify_network_changed(step: str) -> None:
    """Notify the agent at once and again after 1 s: connections made in between may be dead already.

    The timer is no daemon: a process about to end waits for it, the steps do not.
    """
    line = f"network-changed {step}\n"
    if send_line(line):
        threading.Timer(1.0, send_line, (line,)).start()


def send_line(line: str, path: str | None = None) -> bool:
    """Send one line to the agent's control socket, best effort: an agent that does not run yet need not know."""
    import socket

    from cc_sammy.contract import paths

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(0.2)
            client.connect(path or paths.AGENT_SOCKET)
            client.sendall(line.encode())
    except OSError:
        return False
    return True
