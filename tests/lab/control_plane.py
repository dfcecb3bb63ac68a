# SPDX-License-Identifier: Apache-2.0
"""The embedded control plane beside a machine: a process of its own from this tree, its state new each time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.network import Loopback, Network
from tests.lab.shell import LabError, wait_until
from tests.lab.sources import Sources

TOP = Path(__file__).resolve().parents[2]
PORT = 8787
AGENT = ["/usr/bin/python3", "-m", "sammy_agent"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class ControlPlane:
    """A control plane; `start` and `stop` it as often as the test wants, its state stays."""

    network: Network | Loopback
    directory: Path
    port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.directory / "control-plane"

    @property
    def url(self) -> str:
        """Its address, as the machine sees it."""
        return f"https://{self.network.edge}:{self.port}"

    def start(self) -> None:
        """Serve; returns when it does. LabError with its own words when it does not."""
        # A namespace's edge is alone, and has its address only with the machine's wire.
        listen = "0.0.0.0" if isinstance(self.network, Network) else self.network.bind
        serve = ["control-plane", "--state", str(self.state), "--listen", f"{listen}:{self.port}", "--url", self.url]
        log = self.directory / "control-plane.log"
        with log.open("ab") as output:
            command = [*self.network.enter("edge"), *AGENT, *serve]
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT, cwd=TOP)

        def serves() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise LabError(f"the control plane ended: {log.read_text()[-1000:]}")
            with contextlib.suppress(OSError, LabError):
                if self.nodes()["url"] is None:
                    return False
                self.network.call("edge", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close())
                return True
            return False

        wait_until(serves, "the control plane serves", 60)

    def stop(self) -> None:
        """End it, by its process id. Safe when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def command(self, *words: str) -> str:
        """Run a verb on its state; LabError with its own words when it refuses."""
        done = subprocess.run([*AGENT, *words], capture_output=True, text=True, env=ENVIRONMENT, cwd=TOP, check=False)
        if done.returncode != 0:
            raise LabError(f"sammy-agent {words[0]} ended with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def nodes(self) -> dict[str, Any]:
        """Return its own address and all its nodes."""
        answer: dict[str, Any] = json.loads(
            self.command("control-plane", "--state", str(self.state), "nodes", "--json")
        )
        return answer

    def node(self, name: str) -> dict[str, Any]:
        """Return what it knows of a node; an empty mapping when nothing."""
        return next((node for node in self.nodes()["nodes"] if node["id"] == name), {})

    def user_data(self, node: str, sammy: dict[str, Any], stock: Sources | None) -> str:
        """Return the `#cloud-config` that `add-node` prints, with our download sources in it."""
        options = self.state.parent / "options.json"
        options.write_text(json.dumps(sammy))
        words = ["add-node", node, "--state", str(self.state), "--sammy", str(options)]
        if stock is not None:
            key = self.state.parent / "apt-key.asc"
            key.write_text(stock.apt["key"])
            line = f"deb {stock.apt['uri']} {stock.apt['suite']} {' '.join(stock.apt['components'])}"
            words += ["--stock", "--apt-source", line, "--apt-key", str(key)]
        return self.command(*words)


@contextlib.contextmanager
def control_plane(network: Network | Loopback, directory: Path) -> Iterator[ControlPlane]:
    """Yield a control plane that serves, its state new; ended in the end."""
    directory.mkdir(parents=True, exist_ok=True)
    port = network.port(PORT) if isinstance(network, Network) else _usual_or_free(network)
    plane = ControlPlane(network, directory, port)
    shutil.rmtree(plane.state, ignore_errors=True)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def _usual_or_free(network: Loopback) -> int:
    try:
        with socket.create_server((network.bind, PORT)):
            return PORT
    except OSError:
        return network.port(PORT)
