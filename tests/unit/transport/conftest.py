# SPDX-License-Identifier: Apache-2.0
"""Transports that are closed after the test, and servers with and without TLS."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Iterator

import pytest

from sammy_agent.transport import ControlPlaneTransport, TransportSettings
from tests.unit.transport.faults import Authority, Script, Server

Serve = Callable[[Script], Server]
Make = Callable[..., ControlPlaneTransport]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    return authority.context("127.0.0.1")


@pytest.fixture(params=["http", "https"])
def serve(request: pytest.FixtureRequest, server_tls: ssl.SSLContext) -> Iterator[Serve]:
    """Start servers, each test once without and once with TLS."""
    servers: list[Server] = []

    def start(script: Script) -> Server:
        servers.append(Server(script, tls=server_tls if request.param == "https" else None))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def make(authority: Authority) -> Iterator[Make]:
    """Make transports that trust the test's authority; settings by keyword."""
    made: list[ControlPlaneTransport] = []

    def transport(settings: TransportSettings | None = None, **changes: object) -> ControlPlaneTransport:
        base = settings or TransportSettings()
        made.append(ControlPlaneTransport(dataclasses.replace(base, ca_file=authority.ca_file, **changes)))  # type: ignore[arg-type]
        return made[-1]

    yield transport
    for transport_made in made:
        transport_made.close()
