# SPDX-License-Identifier: Apache-2.0
"""The client of a node's own server: sends a management token, checks the node's certificate, says why it failed.

Whatever the node's status: those that are not running are the ones to look into, and SAM's control plane refuses
exactly these. The host name that is called is the node's id, which its certificate holds wherever it moves; the
address is where its last heartbeat came from.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.util import Timeout

from cc_sammy.common.terminal import escape_control_characters
from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.untrusted import InvalidJSON, read_object
from sammy_agent.base.wire.claims import CHECKSUM_HEADER, NODE_ID_HEADER
from sammy_agent.base.wire.endpoints import NODE_SERVER_PORT
from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.token_signer import TokenSigner
from sammy_agent.transport import ControlPlaneTransport, TransportSettings, certificate_problem, describe
from sammy_agent.transport.errors import chain

CONNECT_TIMEOUT = 5.0  # seconds
# How long a node may be silent before its answer begins, and for all of it.
READ_TIMEOUTS = {"/debug-package": 180.0, "/logs": 60.0}
READ_TIMEOUT = 30.0
TOTAL_TIMEOUT = 1800.0
MAX_ERROR_BYTES, MAX_ERROR_CHARACTERS = 8192, 1000  # of what a node says of itself
# The request is wrong, or may be repeated later: passed on as it is.
PASSED_ON_STATUSES = (400, 404, 409, 413, 429)
PASSED_ON_HEADERS = ("Content-Type", "Content-Length", "Content-Disposition", CHECKSUM_HEADER)


class Unreachable(ControlPlaneError):
    """A node's server could not be reached."""

    code = Code.NODE_UNREACHABLE
    status = 502


class NodeRefused(ControlPlaneError):
    """A node's server answered, but not with 200; `status` is what its answer is passed on as."""

    code = Code.NODE_REFUSED

    def __init__(self, status: int, message: str, retry_after: str | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(message)


class NodeClient:
    """Sends requests to the nodes' own servers. Thread-safe; every call blocks.

    :param issuer: our address, for nodes of which no other is known.
    """

    def __init__(self, signer: TokenSigner, authority: CertificateAuthority, issuer: str) -> None:
        self._signer, self._issuer = signer, issuer
        self._addresses: dict[str, str] = {}
        self._transport = ControlPlaneTransport(
            TransportSettings(ca_file=authority.ca_file, connect_seconds=CONNECT_TIMEOUT), self._lookup
        )

    def close(self) -> None:
        """Abort all requests."""
        self._transport.close()

    def get(self, row: Mapping[str, Any], path: str, query: str = "") -> requests.Response:
        """Return a node's answer (200), its body still to be read; the caller closes it.

        :param row: the node as the store has it.
        :param path: of the node's server, with the slash.
        :raises Unreachable: it could not be reached.
        :raises NodeRefused: it answered something else.
        """
        node, port = str(row["id"]), row["agent_port"] or NODE_SERVER_PORT
        if not row["ip_address"]:
            raise Unreachable(
                f"{node} has never sent a heartbeat, so its address is unknown",
                "Was it booted with this control plane's user-data? Look at its console",
            )
        host = node.lower()
        self._addresses[host] = row["ip_address"]
        token = self._signer.management_token(row["url"] or self._issuer, node)
        read_timeout = READ_TIMEOUTS.get(path, READ_TIMEOUT)
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
                timeout=Timeout(connect=CONNECT_TIMEOUT, read=read_timeout, total=TOTAL_TIMEOUT),  # type: ignore[arg-type]
                allow_redirects=False,
                proxies={"no_proxy": "*"},
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise unreachable(error, row, read_timeout, time.time()) from error
        if response.status_code != 200:
            with response:
                raise refused(response, node)
        return response

    def _lookup(self, host: str, port: int, **how: Any) -> list[Any]:
        return socket.getaddrinfo(self._addresses.get(host, host), port, flags=socket.AI_NUMERICHOST, **how)


def unreachable(error: BaseException, row: Mapping[str, Any], read_timeout: float, now: float) -> Unreachable:
    """Return why a node could not be reached in `read_timeout` seconds, and what to look at next."""
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
            "Is this control plane in its firewall.allow? On the node: sammy status, sammy firewall status",
        )
    if isinstance(error, requests.Timeout):
        return Unreachable(
            f"{node} at {where} took the request and did not answer for {read_timeout:.0f} s{heard}",
            "On the node: journalctl -u sammy-agent",
        )
    if any(isinstance(part, OSError) and part.errno == errno.ECONNREFUSED for part in chain(error)):
        return Unreachable(
            f"{where} refuses connections{heard}",
            "Its agent is down, or has no certificate yet, or its port is another one. On the node: sammy status",
        )
    return Unreachable(f"{node} at {where} cannot be reached: {describe(error)}{heard}", "On the node: sammy status")


def refused(response: requests.Response, node: str) -> NodeRefused:
    """Return a node's answer as an error for the operator; the node's 401 is not the operator's."""
    words = ""
    with contextlib.suppress(requests.RequestException, InvalidJSON):
        told = read_object(next(response.iter_content(MAX_ERROR_BYTES), b""), repair=True).get("error", "")
        words = escape_control_characters(" ".join(str(told).split()))[:MAX_ERROR_CHARACTERS]
    status = response.status_code
    if status in (401, 403):
        return NodeRefused(502, f"{node} rejects this control plane's token: {words}")
    said = f"{node} answers {status}: {words}" if words else f"{node} answers {status}"
    return NodeRefused(status if status in PASSED_ON_STATUSES else 502, said, response.headers.get("Retry-After"))
