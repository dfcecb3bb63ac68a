# SPDX-License-Identifier: Apache-2.0
"""Runs the control plane's server: one state directory, one address, always TLS, READY to systemd once it listens."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import logging
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from tornado import netutil

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.sd_notify import notify
from sammy_agent.base.web.connection_limit import ConnectionLimiter
from sammy_agent.base.web.guarded_server import Limiter, guarded_server, raise_descriptor_limit
from sammy_agent.control_plane.api import app
from sammy_agent.control_plane.api.base_handler import ApiContext
from sammy_agent.control_plane.certificate_authority import CertificateAuthority
from sammy_agent.control_plane.node_client import NodeClient
from sammy_agent.control_plane.reachability_poller import POLL_INTERVAL, ReachabilityPoller
from sammy_agent.control_plane.storage.database import Store
from sammy_agent.control_plane.token_signer import TokenSigner

LOG = logging.getLogger(__name__)
MAX_BODY_BYTES = 2 * 1024 * 1024 + 64 * 1024  # a debug package
# An agent keeps an idle connection for 30 s: longer, so that it is never closed just as a request is sent on it.
HEADER_TIMEOUT = 45.0
BODY_TIMEOUT = 120.0  # a debug package over a slow line
# Beyond it, who has waited longest without a good token makes room; a kept connection with TLS takes 24 KiB.
MAX_CONNECTIONS = 4096
# A certificate of 825 days is renewed 60 days before its end; a server that is never restarted looks once a day.
CERTIFICATE_CHECK_SECONDS = 86400.0


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT ([HOST]:PORT for IPv6). ControlPlaneError when it is neither."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ControlPlaneError(f"invalid --listen {listen}", "Use HOST:PORT, for example 127.0.0.1:8787")
    return host, int(port)


def check_url(url: str) -> str:
    """Return a control plane's address without a trailing slash. ControlPlaneError when it is not an https address."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ControlPlaneError(f"invalid --url {url}", "Use https://HOST:PORT as the nodes reach it")
    return url.rstrip("/")


def open_folder(folder: str) -> str:
    """Make the state directory, private; return its path."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError as error:
        raise ControlPlaneError(f"{folder}: {error.strerror}", "Choose another --state directory") from error
    return folder


def serve(
    listen: str,
    folder: str,
    url: str | None,
    names: Sequence[str],
    contact_every: float = POLL_INTERVAL,
) -> int:
    """Serve until told to stop; return the exit status.

    :param url: the address as the nodes reach it; default is the one listened on.
    :param names: more host names and addresses for the certificate.
    :param contact_every: seconds between two polls of a running node's server; 0 never polls.
    """
    host, port = split_listen(listen)
    if url is None and _is_wildcard(host):
        raise ControlPlaneError(
            f"--listen {listen} is not an address that nodes can connect to", "Give the one that they use with --url"
        )
    url = check_url(url) if url else None
    with _single_instance_lock(open_folder(folder)):
        try:
            sockets = netutil.bind_sockets(port, host)
        except OSError as error:
            raise ControlPlaneError(
                f"cannot listen on {listen}: {error.strerror or error}",
                "Choose another port, or find who has it: ss -ltnp",
            ) from error
        port = sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        try:
            asyncio.run(_serve(sockets, folder, url or f"https://{shown}:{port}", [host, *names], contact_every))
        finally:
            for one in sockets:
                one.close()
    return 0


@contextmanager
def _single_instance_lock(folder: str) -> Iterator[None]:
    with open(os.path.join(folder, "lock"), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ControlPlaneError(
                f"another control plane is running on {folder}", "Stop it, or choose another --state directory"
            ) from error
        yield


async def _serve(
    sockets: list[socket.socket], folder: str, url: str, names: Sequence[str], contact_every: float
) -> None:
    authority = CertificateAuthority(folder)
    store = Store(folder, create=True)
    signer = TokenSigner.open(folder)
    node_client = NodeClient(signer, authority, url)
    # The soft limit of files, often 1,024, is what a flood of connections would meet first.
    connections: Limiter = ConnectionLimiter(min(MAX_CONNECTIONS, raise_descriptor_limit()))
    api_context = ApiContext(store, signer, authority, url, _operator_token(folder), node_client, folder, connections)
    own_names = _certificate_names(url, names)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.load_cert_chain(*authority.server_files(own_names))
    server = guarded_server(
        app.application(api_context), tls, connections,
        max_body_bytes=MAX_BODY_BYTES, header_timeout=HEADER_TIMEOUT, body_timeout=BODY_TIMEOUT,
    )  # fmt: skip
    store.set_setting("url", url)
    store.set_setting("names", " ".join(own_names))
    server.add_sockets(sockets)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(f"control plane  {url}\nstate          {folder}\nCA SHA-256     {authority.fingerprint()}", flush=True)
    notify(f"READY=1\nSTATUS=serving {url}")
    polling = (
        asyncio.ensure_future(ReachabilityPoller(store, node_client, contact_every).run()) if contact_every else None
    )
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), CERTIFICATE_CHECK_SECONDS)
        except asyncio.TimeoutError:
            tls.load_cert_chain(*authority.server_files(own_names))
    notify("STOPPING=1")
    if polling is not None:
        polling.cancel()
    node_client.close()
    server.stop()
    await server.close_all_connections()
    store.close()


def _operator_token(folder: str) -> str:
    path = os.path.join(folder, "operator-token")
    token = (files.read(path) or "").strip()
    if not token:
        token = secrets.token_urlsafe(32)
        files.write(path, token + "\n", mode=files.PRIVATE)
    return token


def _certificate_names(url: str, names: Sequence[str]) -> list[str]:
    """Return every name the server may be called by: all that was given, loopback and the machine's own name."""
    given = {urlsplit(url).hostname or "", *names, "localhost", "127.0.0.1", "::1", socket.gethostname()}
    return sorted(name for name in given if name and not _is_wildcard(name))


def _is_wildcard(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False
