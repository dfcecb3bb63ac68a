# SPDX-License-Identifier: Apache-2.0
"""Tells the agent's control socket that a step changed the network, best effort."""

from __future__ import annotations

import threading


def tell_network_changed(step: str) -> None:
    """Tell the agent at once and again after 1 s: connections made in between may be dead already.

    The timer is no daemon: a process about to end waits for it, the steps do not.
    """
    line = f"network-changed {step}\n"
    if tell_agent(line):
        threading.Timer(1.0, tell_agent, (line,)).start()


def tell_agent(line: str, path: str | None = None) -> bool:
    """Send one line to the agent's control socket, best effort: an agent that is not there yet needs no news."""
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
