# SPDX-License-Identifier: Apache-2.0
"""Strangers at the control plane's port: one packet, a thousand silent connections, bodies and tokens made to break."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.agent import lab
from tests.agent.lab import ControlPlane, wait_for

POST = b"POST /api/nodes/n1/heartbeat HTTP/1.1\r\nHost: h\r\n"
HANGS = {
    "chunk of -1": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx",
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "length of +5": POST + b"Content-Length: +5\r\n\r\nhello",
    "length of 5,000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
}
DEEP_TOKEN = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode() + ".e30.AAAA"


def raw(plane: ControlPlane, data: bytes) -> bytes:
    """Return what comes back until the server hangs up."""
    context = ssl.create_default_context(cafile=plane.ca_file)
    plain = socket.create_connection(("127.0.0.1", plane.port), timeout=lab.PATIENCE)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as channel:
        channel.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while part := channel.recv(65536):
                found += part
        return found


def post(plane: ControlPlane, token: str, body: bytes, path: str = "heartbeat") -> requests.Response:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"{plane.url}/api/nodes/n1/{path}"
    return requests.post(url, data=body, headers=headers, verify=plane.ca_file, timeout=lab.PATIENCE)


@pytest.fixture(scope="module")
def token(plane: ControlPlane) -> str:
    """The first token of node n1."""
    plane.add_node("n1", "--replace")
    return plane.token("n1")


@pytest.mark.parametrize("data", HANGS.values(), ids=HANGS.keys())
def test_one_packet_hangs_nothing(plane: ControlPlane, data: bytes) -> None:
    """A chunk of -1 held the whole control plane for good, SIGTERM included."""
    assert raw(plane, data).startswith(b"HTTP/1.1 4")
    assert isinstance(plane.nodes(), dict), "the operator is answered"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested deeper"),
        (b'{"activeWorkspaces": NaN}', "NaN is not JSON"),
        (b'{"activeWorkspaces": ' + b"9" * 400 + b"}", "digits"),
        (b'{"agentVersion": "\\ud800"}', "surrogate"),
        (b'{"agentVersion": "\xff"}', "UTF-8"),
        (b"[1]", "object"),
    ],
    ids=["deep", "NaN", "digits", "surrogate", "latin-1", "array"],
)
def test_a_body_made_to_break_is_refused_in_words(plane: ControlPlane, token: str, body: bytes, words: str) -> None:
    answer = post(plane, token, body)
    assert answer.status_code == 400 and words in answer.json()["message"], answer.text
    assert post(plane, token, b"{}").status_code == 200


@pytest.mark.parametrize(
    "bad", [DEEP_TOKEN, "\u00e4".encode().decode("latin-1"), "a.b.c"], ids=["deep", "umlaut", "short"]
)
def test_a_token_made_to_break_is_refused(plane: ControlPlane, bad: str) -> None:
    assert post(plane, bad, b"{}").status_code == 401
    headers = {"Authorization": f"Bearer {bad}"}
    answer = requests.get(f"{plane.url}/api/nodes", headers=headers, verify=plane.ca_file, timeout=lab.PATIENCE)
    assert answer.status_code == 401


class Crowded(ControlPlane):
    """A control plane that may have 1,024 files, and whose log is kept."""

    def start(self) -> str:
        self.log = self.folder / "log"
        limited = [sys.executable, "-c", "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE,"
                   " (256, 1024)); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]  # fmt: skip
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*limited, "-m", "sammy_agent", "control-plane", "--listen", f"127.0.0.1:{self.port}",
                 "--url", self.url, "--state", str(self.folder), "--contact-every", "0"],
                cwd=lab.TREE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        return "".join(self._process.stdout.readline() for _ in range(3))


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Crowded]:
    plane = Crowded(tmp_path)
    plane.start()
    yield plane
    plane.stop()


def test_silent_connections_keep_nobody_out(crowded: Crowded) -> None:
    """They took every descriptor: no heartbeat got in while they were held, half a core and 338 MB of log besides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    crowded.add_node("n1")
    token = crowded.token("n1")
    strangers: list[socket.socket] = []
    try:
        for _ in range(1100):
            strangers.append(socket.create_connection(("127.0.0.1", crowded.port), timeout=lab.PATIENCE))
        answers = []
        for _ in range(20):
            answers.append(post(crowded, token, b"{}").status_code)
            time.sleep(0.02)
        assert answers == [200] * 20
        descriptors = len(os.listdir(f"/proc/{crowded._process.pid}/fd"))  # type: ignore[union-attr]  # it runs
        assert descriptors <= 1024
    finally:
        for one in strangers:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: post(crowded, token, b"{}").status_code == 200, "an answer after the flood")
    assert len(crowded.log.read_bytes().splitlines()) <= 100


def test_a_strangers_refusals_do_not_fill_the_log(crowded: Crowded) -> None:
    with requests.Session() as session:
        for _ in range(300):
            answer = session.get(f"{crowded.url}/api/nodes", verify=crowded.ca_file, timeout=lab.PATIENCE)
            assert answer.status_code == 401
    assert len(crowded.log.read_bytes().splitlines()) <= 20
