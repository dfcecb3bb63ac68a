# SPDX-License-Identifier: Apache-2.0
"""The control plane of the churn laboratory: a threaded HTTP server, with TLS, that remembers every request.

Runs as a program inside a namespace. The path's query says how to behave: `wait` (seconds before the answer), `pause`
(seconds before the body is read on). `dump` on its input makes it print what arrived, `stall` how late the machine
woke it, each as one JSON line.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse
from typing import ClassVar


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    seen: ClassVar[list[tuple[str, str, int, float]]] = []

    def do_POST(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        how = {name: float(value) for name, value in urllib.parse.parse_qsl(url.query)}
        left = int(self.headers.get("Content-Length", 0))
        if how.get("pause"):
            self.rfile.read(min(left, 65536))
            left -= min(left, 65536)
            time.sleep(how["pause"])
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 20))) or left
        key = self.headers.get("X-Sammy-Idempotency-Key", "")
        self.seen.append((url.path, key, self.client_address[1], time.time()))
        time.sleep(how.get("wait", 0.0))
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def server_bind(self) -> None:
        """Bind without the look-up of the own name, which waits for a resolver nobody has here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """Shake hands in the connection's own thread, or a silent client would hold all others."""
        if self.tls is not None:
            request.settimeout(60)
            request = self.tls.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, *_: object) -> None:
        """Connections die here on purpose."""


class Stall(threading.Thread):
    """How late this process was woken at worst: the machine's share of every gap."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0

    def run(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(0.02)
            self.longest = max(self.longest, time.monotonic() - before - 0.02)


def main(pem: str, *addresses: str) -> None:
    """Serve on each address, port 443 with TLS and 80 without, until the input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    for address in addresses:
        for port, tls in ((443, context), (80, None)):
            kind = type("Family", (Server,), {"address_family": 10 if ":" in address else 2})
            server = kind((address, port), Handler)
            server.tls = tls
            threading.Thread(target=server.serve_forever, daemon=True).start()
    stall = Stall()
    stall.start()
    print("serving", flush=True)
    for line in sys.stdin:
        answers = {"dump": Handler.seen, "stall": stall.longest}
        print(json.dumps(answers[line.strip()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
