# SPDX-License-Identifier: Apache-2.0
"""dockerd asked over its own socket: no client needed (Debian 13's docker.io has none) and no process spawned."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from typing import Any

from cc_sammy.errors import StepFailed
from cc_sammy.host import Host

SOCKET = "/run/docker.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)

    def connect(self) -> None:
        """Connect to the Unix socket instead of the network."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def request(method: str, path: str, *, timeout: float = 10.0) -> tuple[int, bytes]:
    """Send one request to dockerd; return status and body. OSError when it does not answer."""
    connection = _Connection(timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"dockerd broke off: {error!r}") from error
    finally:
        connection.close()


def answers() -> bool:
    """Tell whether dockerd answers its ping."""
    try:
        return request("GET", "/_ping", timeout=3)[0] == 200
    except OSError:
        return False


def wait(host: Host, seconds: float = 60.0) -> None:
    """Wait for dockerd's answer: it may be ready 1 to 2 s after its unit is. StepFailed when it does not come."""
    end = host.boottime() + seconds
    while not answers():
        if host.boottime() > end:
            raise StepFailed(
                f"dockerd does not answer on {SOCKET} after {seconds:.0f} s",
                "Look at journalctl -b -u docker",
            )
        host.sleep(0.05)


def running_containers() -> int:
    """Return how many containers run. OSError when dockerd does not answer."""
    status, body = request("GET", "/containers/json")
    containers: list[Any] = json.loads(body) if status == 200 else []
    return len(containers)


def has_image(name: str) -> bool:
    """Tell whether the image is there. OSError when dockerd does not answer."""
    return request("GET", f"/images/{urllib.parse.quote(name, safe='/:@')}/json")[0] == 200


def pull(name: str, seconds: float) -> None:
    """Pull an image; StepFailed with dockerd's own words. OSError when dockerd breaks off."""
    quoted = urllib.parse.quote(name, safe="")
    # With no tag the API would pull every tag there is.
    tag = "" if "@" in name or ":" in name.rsplit("/", 1)[-1] else "&tag=latest"
    status, body = request("POST", f"/images/create?fromImage={quoted}{tag}", timeout=seconds)
    lines = [json.loads(line) for line in body.decode(errors="replace").splitlines() if line.startswith("{")]
    said = [line.get("error") or line.get("message") for line in lines if "error" in line or status != 200]
    if said or status != 200:
        words = "; ".join(filter(None, said)) or f"status {status}"
        passing = any(part in words for part in ("timeout", "connection", "no such host", "EOF", "TLS handshake"))
        raise StepFailed(f"could not pull {name}: {words}", passing=passing)
