# SPDX-License-Identifier: Apache-2.0
"""Asks a node's own server, with a management token, by the node's certificate; and says in words why it cannot.

Whatever the node's status: those that are not running are the ones to look into, and SAM's control plane refuses
exactly these. The host name that is called is the node's id, which its certificate holds wherever it moves; the
address is where its last heartbeat came from.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.util import Timeout

from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.wire.claims import CHECKSUM_HEADER, NODE_ID_HEADER
from sammy_agent.base.wire.endpoints import NODE_SERVER_PORT
from sammy_agent.control_plane.certificate_authority import Authority
from sammy_agent.control_plane.tokens import Signer
from sammy_agent.transport import ControlPlaneTransport, TransportSettings, certificate_problem, describe
from sammy_agent.transport.errors import chain

CONNECT = 5.0  # seconds
# How long a node may be silent before its answer begins, and for all of it.
PATIENCE = {"/debug-package": 180.0, "/logs": 60.0}
USUAL_PATIENCE = 30.0
LONGEST = 1800.0
# What is wrong with the question, or passes: the asker is told the same.
PASSED_ON = (400, 404, 409, 413, 429)
HEADERS = ("Content-Type", "Content-Length", "Content-Disposition", CHECKSUM_HEADER)


class Unreachable(ControlPlaneError):
    """A node's server cannot be asked."""

    code = Code.NODE_UNREACHABLE
    status = 502


class NodeRefused(ControlPlaneError):
    """A node's server answered, but not as asked; `status` is what the asker is told."""

    code = Code.NODE_REFUSED

    def __init__(self, status: int, message: str, retry_after: str | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(message)


class Management:
    """The control plane's way into its nodes. Thread-safe; every call blocks.

    :param issuer: our address, for nodes of which no other is known.
    """

    def __init__(self, signer: Signer, authority: Authority, issuer: str) -> None:
        self._signer, self._issuer = signer, issuer
        self._addresses: dict[str, str] = {}
        self._transport = ControlPlaneTransport(
            TransportSettings(ca_file=authority.ca_file, connect_seconds=CONNECT), self._lookup
        )

    def close(self) -> None:
        """End all calls."""
        self._transport.close()

    def ask(self, row: Mapping[str, Any], path: str, query: str = "") -> requests.Response:
        """Return a node's answer (200), its body still to be read; the caller closes it.

        :param row: the node as the store has it.
        :param path: of the node's server, with the slash.
        :raises Unreachable: it could not be asked.
        :raises NodeRefused: it answered something else.
        """
        node, port = str(row["id"]), row["agent_port"] or NODE_SERVER_PORT
        if not row["ip_address"]:
            raise Unreachable(
                f"{node} was never heard of, so there is no address to ask it at",
                "Was it booted with this control plane's user-data? Its console tells",
            )
        host = node.lower()
        self._addresses[host] = row["ip_address"]
        token = self._signer.management_token(row["url"] or self._issuer, node)
        patience = PATIENCE.get(path, USUAL_PATIENCE)
        try:
            response = self._transport.session("management").get(
                f"https://{host}:{port}{path}{'?' if query else ''}{query}",
                headers={
                    "Authorization": f"Bearer {token}",
                    NODE_ID_HEADER: node,
                    "Accept-Encoding": "identity",
                    # another node may have this address or this host name by the next call
                    "Connection": "close",
                },
                stream=True,
                timeout=Timeout(connect=CONNECT, read=patience, total=LONGEST),  # type: ignore[arg-type]
                allow_redirects=False,
                proxies={"no_proxy": "*"},
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise unreachable(error, row, patience, time.time()) from error
        if response.status_code != 200:
            with response:
                raise refused(response, node)
        return response

    def _lookup(self, host: str, port: int, **how: Any) -> list[Any]:
        return socket.getaddrinfo(self._addresses.get(host, host), port, flags=socket.AI_NUMERICHOST, **how)


def unreachable(error: BaseException, row: Mapping[str, Any], patience: float, now: float) -> Unreachable:
    """Return why a node could not be asked in `patience` seconds, and what to look at next."""
    node, where, last_beat = (
        row["id"],
        f"{row['ip_address']} port {row['agent_port'] or NODE_SERVER_PORT}",
        row["last_heartbeat_at"],
    )
    heard = "" if last_beat is None else f"; its last heartbeat is {max(0.0, now - last_beat):.0f} s old"
    certificate = certificate_problem(error)
    if certificate is not None:
        return Unreachable(
            f"what answers at {where} is not {node} as this control plane knows it: {certificate}{heard}",
            "Has another machine its address, or another authority signed its certificate?",
        )
    if isinstance(error, requests.ConnectTimeout):
        return Unreachable(
            f"nothing answers at {where}{heard}",
            "Does its firewall let this control plane in (firewall.allow)? There: sammy status, sammy firewall status",
        )
    if isinstance(error, requests.Timeout):
        return Unreachable(
            f"{node} at {where} took the request and said nothing for {patience:.0f} s{heard}",
            "There: journalctl -u sammy-agent",
        )
    if any(isinstance(part, OSError) and part.errno == errno.ECONNREFUSED for part in chain(error)):
        return Unreachable(
            f"{where} refuses connections{heard}",
            "Its agent is down, or has no certificate yet, or the port is another one. There: sammy status",
        )
    return Unreachable(f"{node} at {where} cannot be asked: {describe(error)}{heard}", "There: sammy status")


def refused(response: requests.Response, node: str) -> NodeRefused:
    """Return what a node's answer means for who asked; its 401 is not the asker's."""
    words = ""
    with contextlib.suppress(requests.RequestException, ValueError, TypeError, AttributeError, RecursionError):
        words = " ".join(str(next(response.iter_content(8192), b"").decode("utf-8", errors="replace")).split())
        words = _error_of(words)
    status = response.status_code
    if status in (401, 403):
        return NodeRefused(502, f"{node} does not take this control plane's token: {words}")
    said = f"{node} answers {status}: {words}" if words else f"{node} answers {status}"
    return NodeRefused(status if status in PASSED_ON else 502, said, response.headers.get("Retry-After"))


def _error_of(text: str) -> str:
    document = json.loads(text)
    return str(document["error"])[:1000] if isinstance(document, dict) and "error" in document else ""
