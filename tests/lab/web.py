# SPDX-License-Identifier: Apache-2.0
"""A static web server inside the edge's network, in this process, so that a test tells it how to misbehave.

It keeps a list of what was asked for: a test can wait for the moment when a download begins, or see that none did.
"""

from __future__ import annotations

import functools
import http.server
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.lab.network import Loopback, Network
from tests.lab.shell import wait_until

Fault = Literal["missing", "error", "wrong-bytes", "short", "hang", "refuse"]
FAULTS: tuple[Fault, ...] = ("missing", "error", "wrong-bytes", "short", "hang", "refuse")


class Web:
    """Serves a directory on a port of a role's network, IPv4 and IPv6; `close` ends it."""

    def __init__(self, network: Network | Loopback, directory: Path, port: int, role: str = "edge") -> None:
        self.directory = directory
        self.requests: list[str] = []
        self._faults: dict[str, Fault] = {}
        self._closing = threading.Event()
        handler = functools.partial(_Handler, self)
        self._server = http.server.ThreadingHTTPServer(("", port), handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = network.call(role, lambda: _listen(network.bind, port))
        self._server.server_name, self._server.server_port = "lab", port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def fault(self, path: str, kind: Fault | None) -> None:
        """Misbehave for one path, from now on: None mends it.

        missing: 404. error: 500. wrong-bytes: the right length, another content. short: the connection ends halfway.
        hang: no answer, ever. refuse: the connection is reset.
        """
        if kind is None:
            self._faults.pop(path, None)
        elif kind in FAULTS:
            self._faults[path] = kind
        else:
            raise ValueError(f"kind is {kind!r}; allowed are {', '.join(FAULTS)}")

    def mend(self) -> None:
        """Behave well for every path."""
        self._faults.clear()

    def fault_of(self, path: str) -> Fault | None:
        """Return how a path misbehaves."""
        return self._faults.get(path)

    def wait_for(self, path: str, seconds: float = 120.0) -> None:
        """Wait until somebody has asked for a path.

        :raises LabError: nobody has within so many seconds.
        """
        wait_until(lambda: path in self.requests, f"somebody asks for {path}", seconds)

    def hold(self) -> None:
        """Keep a request's thread until the server ends."""
        self._closing.wait()

    def close(self) -> None:
        """End the server and every request that hangs."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen(address: str, port: int) -> socket.socket:
    both = address == "::"
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=128, dualstack_ipv6=both)


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, web: Web, *arguments: object) -> None:
        self.web = web
        super().__init__(*arguments, directory=str(web.directory))  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer, well or as told."""
        path = urllib.parse.unquote(self.path)
        self.web.requests.append(path)
        kind = self.web.fault_of(path)
        acts: dict[Fault | None, Callable[[], None]] = {
            None: super().do_GET,
            "missing": lambda: self.send_error(404),
            "error": lambda: self.send_error(500),
            "wrong-bytes": lambda: self._altered(whole=True),
            "short": lambda: self._altered(whole=False),
            "hang": self.web.hold,
            "refuse": self._reset,
        }
        acts[kind]()

    def _altered(self, *, whole: bool) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        wrong = bytes(byte ^ 1 for byte in content[:4096]) + content[4096:]
        self.wfile.write(wrong if whole else content[: len(content) // 2])
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *arguments: object) -> None:
        """Say nothing: `requests` has it."""
