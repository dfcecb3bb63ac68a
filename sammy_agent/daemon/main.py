# SPDX-License-Identifier: Apache-2.0
"""Runs the agent as a process: signals, systemd's watchdog and the control socket until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.sd_notify import notify, watchdog_seconds
from sammy_agent.daemon.agent import Agent
from sammy_agent.daemon.control_socket import ControlSocket


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable at SIGTERM or SIGINT."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()


def run(root: str = "") -> int:
    """Serve until told to stop; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    paths = Paths(root)
    agent = Agent(paths)
    with _stop_signals() as stop, selectors.DefaultSelector() as selector:
        control = ControlSocket(paths.socket, agent.verbs())
        selector.register(stop, selectors.EVENT_READ)
        selector.register(control.listener, selectors.EVENT_READ)
        notify("READY=1\nSTATUS=listening on its control socket")
        agent.start()
        try:
            while True:
                ready = [key.fileobj for key, _ in selector.select(watchdog_seconds())]
                if agent.is_alive():
                    notify("WATCHDOG=1")
                if stop in ready:
                    agent.told_to_stop(stop.recv(1)[0])
                    break
                if control.listener in ready:
                    control.serve_one()
        finally:
            notify("STOPPING=1")
            agent.stop()
            control.close()
    if agent.wants_restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return agent.exit_status
