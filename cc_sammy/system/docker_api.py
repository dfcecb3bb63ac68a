# SPDX-License-Identifier: Apache-2.0
"""Requests to dockerd over its socket, without a client (Debian 13's docker.io has none) and without a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host

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
    with _answer(method, path, timeout) as answer:
        return answer.status, answer.read()


@contextlib.contextmanager
def _answer(method: str, path: str, timeout: float) -> Iterator[http.client.HTTPResponse]:
    connection = _Connection(timeout)
    try:
        connection.request(method, path)
        yield connection.getresponse()
    except http.client.HTTPException as error:
        raise ConnectionError(f"dockerd closed the connection: {error!r}") from error
    finally:
        connection.close()


def answers() -> bool:
    """Return whether dockerd answers a ping."""
    try:
        return request("GET", "/_ping", timeout=3)[0] == 200
    except OSError:
        return False


def wait(host: Host, seconds: float = 60.0) -> None:
    """Wait until dockerd answers, 1 to 2 s after its unit is active. StepFailed when it does not in time."""
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


def digest(name: str) -> str | None:
    """Return the digest that the image was pulled by, else its id; None when it is absent. OSError as `request`."""
    status, body = request("GET", f"/images/{urllib.parse.quote(name, safe='/:@')}/json")
    if status != 200:
        return None
    image: dict[str, Any] = json.loads(body)
    pulled = [str(entry).rpartition("@") for entry in image.get("RepoDigests") or ()]
    repository = _repository(name)
    # One image may have been pulled by several names, each with a digest of its own.
    own = [found for known, _, found in pulled if known == repository]
    return (own or [found for _, _, found in pulled] or [str(image.get("Id", "unknown"))])[0]


def _repository(name: str) -> str:
    """Return the name without tag and digest."""
    name = name.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rsplit("/", 1)[-1] else name


class PullProgress:
    """Condenses dockerd's messages about one pull: one line per finished layer, not one per message."""

    def __init__(self) -> None:
        self._fetched: dict[str, int] = {}  # bytes by layer
        self._done: set[str] = set()

    def line(self, message: Mapping[str, Any]) -> str | None:
        """Take one message; return the line to print for it, or None."""
        layer, status = message.get("id"), str(message.get("status", ""))
        if status.startswith(("Digest: ", "Status: ")):
            return status
        if not layer or status.startswith("Pulling from"):
            return None
        self._fetched.setdefault(layer, 0)
        if status == "Downloading":
            self._fetched[layer] = int((message.get("progressDetail") or {}).get("current") or 0)
        if status not in ("Pull complete", "Already exists") or layer in self._done:
            return None
        self._done.add(layer)
        megabytes = sum(self._fetched.values()) / 1e6
        return f"{len(self._done)} of {len(self._fetched)} layers, {megabytes:.0f} MB fetched"


def pull(name: str, seconds: float, print_line: Callable[[str], None]) -> None:
    """Pull an image, printing its progress. StepFailed with dockerd's message; OSError when the connection is lost."""
    quoted = urllib.parse.quote(name, safe="")
    # With no tag the API would pull every tag there is.
    tag = "" if "@" in name or ":" in name.rsplit("/", 1)[-1] else "&tag=latest"
    end, progress, said = time.monotonic() + seconds, PullProgress(), []
    with _answer("POST", f"/images/create?fromImage={quoted}{tag}", seconds) as answer:
        for raw in answer:
            message = _message(raw)
            if "error" in message or answer.status != 200:
                said.append(str(message.get("error") or message.get("message") or ""))
            elif line := progress.line(message):
                print_line(f"{name}: {line}")
            if time.monotonic() > end:
                raise StepFailed(f"could not pull {name}: not finished after {seconds:.0f} s", transient=True)
        if said or answer.status != 200:
            words = "; ".join(filter(None, said)) or f"status {answer.status}"
            transient = any(part in words for part in ("timeout", "connection", "no such host", "EOF", "TLS handshake"))
            raise StepFailed(f"could not pull {name}: {words}", transient=transient)
    if digest(name) is None:  # read by lines, a truncated response ends like a complete one
        raise ConnectionError(f"dockerd aborted the pull of {name}")


def _message(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
