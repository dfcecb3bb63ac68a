# SPDX-License-Identifier: Apache-2.0
"""Processes for the agent's tests: a real control plane, a misbehaving one, the agent itself, all on loopback."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
import yaml

from sammy_agent.control_plane.token_signer import TokenSigner

TREE = Path(__file__).resolve().parents[2]
# noisy machines with two cores run this: deadlines bound a failure, they do not time a success
PATIENCE = 60.0
QUICK = {"heartbeat_seconds": 0.2}


def wait_for(what: Callable[[], Any], why: str, seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {why}; last answer {answer!r}"
        time.sleep(0.02)


def command(*arguments: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `sammy-agent …` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "sammy_agent", *arguments],
        cwd=TREE,
        input=input,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def prepared(*arguments: str) -> str:
    """Return what `sammy-agent …` prints, run in this process: what a test begins with need not start a Python each."""
    from sammy_agent.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(arguments) == 0
    return printed.getvalue()


_given: set[int] = set()  # an agent listens only once it has its certificate: until then its port looks free


def free_port() -> int:
    """Return a loopback port below the kernel's local range that nobody listens on now, and a new one each time."""
    for port in range(20000 + os.getpid() * 1009 % 11000, 32000):  # far from those of the process beside this one
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise AssertionError("no free port")


class ControlPlane:
    """A control plane's process; may be stopped and started again on the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self._options = folder, options
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.crt")

    @functools.cached_property
    def signer(self) -> TokenSigner:
        """What signs with the control plane's own key, which it has once it runs."""
        return TokenSigner.open(str(self.folder))

    def start(self) -> str:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sammy_agent", "control-plane", "--listen", f"127.0.0.1:{self.port}",
             "--url", self.url, "--state", str(self.folder), *self._options],
            cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline() for _ in range(3)]
        assert lines[0].strip() == f"control plane  {self.url}", lines
        return "".join(lines)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        assert process.stdout is not None
        process.stdout.close()
        return process.wait(PATIENCE)

    def add_node(self, node: str, *more: str) -> dict[str, Any]:
        """Return the new node's user-data."""
        loaded: dict[str, Any] = yaml.safe_load(prepared("add-node", node, "--state", str(self.folder), *more))
        return loaded

    def token(self, node: str) -> str:
        return prepared("control-plane", "token", node, "--state", str(self.folder)).strip()

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return the nodes as the server itself tells its operator."""
        operator = (self.folder / "operator-token").read_text().strip()
        answer = requests.get(
            f"{self.url}/api/nodes",
            headers={"Authorization": f"Bearer {operator}"},
            verify=self.ca_file,
            timeout=PATIENCE,
        )
        return {node["id"]: node for node in answer.json()["nodes"]}


@contextmanager
def control_plane(folder: Path, *options: str) -> Iterator[ControlPlane]:
    """Run a control plane; it ends with the block."""
    plane = ControlPlane(folder, *options)
    plane.start()
    try:
        yield plane
    finally:
        plane.stop()


class Misbehaving:
    """A server with a good certificate and bad manners, on an address of a control plane that is away.

    `manner` is one of 500, 401, garbage (200 and no JSON), foreign (200 and other JSON), deep (JSON that exhausts
    a parser), drip (a byte a second),
    hang (nothing at all).
    """

    def __init__(self, plane: ControlPlane, manner: str) -> None:
        self.manner = manner
        self.calls: list[str] = []
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                outer.calls.append(self.path)
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", plane.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(plane.folder / "server.crt"), str(plane.folder / "server.key"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        bodies = {
            "500": (500, b'{"error":"INTERNAL_ERROR","message":"Internal server error","requestId":"x"}'),
            "401": (401, b'{"error":"UNAUTHORIZED","message":"Invalid callback token"}'),
            "garbage": (200, b"<html><title>Welcome to the hotel</title></html>"),
            "foreign": (200, b'{"ok":true}'),
            "deep": (200, b"[" * 100_000),
        }
        if self.manner == "hang":
            self._over.wait()
            return
        status, body = bodies.get(self.manner, (200, b'{"status":"running","healthStatus":"healthy"}'))
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.manner != "drip":
            request.wfile.write(body)
            return
        for byte in body:
            request.wfile.write(bytes([byte]))
            if self._over.wait(1.0):
                return

    def __enter__(self) -> Misbehaving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Agent:
    """An agent's process whose files all lie below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        program = root / "bin" / "sammy"
        program.parent.mkdir(parents=True)
        # The real one needs root and a network namespace; what is tested here is that it is called, and when.
        program.write_text(f'#!/bin/sh\necho "$@" >> {root}/sammy-calls\n')
        program.chmod(0o755)

    def path(self, absolute: str) -> Path:
        """Return where a path of the machine lies for this agent."""
        found = self.root / absolute.lstrip("/")
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def configure(self, user_data: dict[str, Any], **more: Any) -> None:
        """Do what cloud-init's write_files and cc_sammy's agent-install do on a machine."""
        for entry in user_data["write_files"]:
            self.path(entry["path"]).write_text(entry["content"])
            self.path(entry["path"]).chmod(int(entry["permissions"], 8))
        control = user_data["sammy"]["control_plane"]
        document = {
            "node_id": user_data["sammy"]["node_id"],
            "control_plane_url": control["url"],
            "token_file": control["token_file"],
            "ca_file": control["ca_file"],
            "debug_push": False,  # the tests of it ask for it; elsewhere it would only cost time
            "port": self.port,
            **more,
        }
        self.path("/etc/sammy/agent.json").write_text(json.dumps(document))

    def start(self) -> None:
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        with open(self.root / "agent.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sammy_agent", "run", "--root", str(self.root)],
                cwd=TREE, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        return process.wait(PATIENCE)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, line: str) -> dict[str, Any]:
        """Ask the control socket; an empty answer while nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(10)
                channel.connect(str(self.path("/run/sammy/agent.sock")))
                channel.sendall((line + "\n").encode())
                with channel.makefile() as file:
                    loaded: dict[str, Any] = json.loads(file.read() or "{}")
                    return loaded
        except (OSError, ValueError):
            return {}

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def cause(self) -> str:
        """Return the code of what stands between the agent and its control plane."""
        contact = self.status().get("contact") or {}
        return str((contact.get("cause") or {}).get("code", ""))

    def provisioned(self, outcome: str, reason: str = "", run: str = "20261124T000000-aaaaaaaa", **more: Any) -> None:
        """Write what cc_sammy writes: the state file, and the run record when the run is over."""
        record = {
            "version": 1,
            "run_id": run,
            "boot_id": self.boot_id,
            "instance_id": "i-1",
            "started": 10.0,
            "wall_clock": "2026-11-24T00:00:00.000+00:00",
            "outcome": outcome,
            "reason": reason,
            "duration_ms": None if outcome == "running" else 1234.5,
            "steps": [
                {"name": "packages", "status": "completed", "started": 10.0, "duration_ms": 1000.0},
                {"name": "docker", "status": "failed" if outcome == "failed" else "completed", "started": 11.0,
                 "duration_ms": 200.0, "reason": reason},
            ],
            **more,
        }  # fmt: skip
        self._replace("/run/sammy/state.json", record)
        if outcome != "running":
            self._replace(f"/var/lib/sammy/runs/{run}.json", record)

    def _replace(self, path: str, record: dict[str, Any]) -> None:
        target = self.path(path)
        beside = target.with_suffix(".new")
        beside.write_text(json.dumps(record))
        beside.replace(target)

    def log(self) -> str:
        return (self.root / "agent.log").read_text()


@contextmanager
def agent(root: Path) -> Iterator[Agent]:
    """Make an agent that ends with the block."""
    one = Agent(root)
    try:
        yield one
    finally:
        one.stop(signal.SIGKILL)
