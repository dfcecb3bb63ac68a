# SPDX-License-Identifier: Apache-2.0
"""The agent's main loop: starts the agent, feeds systemd's watchdog, serves the control socket until a stop signal."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.sd_notify import notify, watchdog_seconds
from sammy_agent.daemon.agent import Agent
from sammy_agent.daemon.control_socket import ControlSocket

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable at SIGTERM or SIGINT; what they did before is put back."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno())
        before = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
        try:
            yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


def run(root: str = "", make_agent: Callable[[Paths], Agent] = Agent) -> int:
    """Serve until told to stop; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    paths = Paths(root)
    agent = make_agent(paths)
    control = ControlSocket(paths.socket, agent.verbs())
    with _stop_signals() as stop, contextlib.closing(control), selectors.DefaultSelector() as selector:
        control.open()
        selector.register(stop, selectors.EVENT_READ)
        selector.register(control.listener, selectors.EVENT_READ)
        notify("READY=1\nSTATUS=listening on its control socket")
        try:
            agent.start()
            while True:
                ready = [key.fileobj for key, _ in selector.select(watchdog_seconds())]
                if agent.is_alive():
                    notify("WATCHDOG=1")
                if stop in ready:
                    agent.record_stop_signal(stop.recv(1)[0])
                    break
                if control.listener in ready:
                    control.serve_one()
        finally:
            notify("STOPPING=1")
            agent.stop()
    if agent.wants_restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return agent.exit_status
