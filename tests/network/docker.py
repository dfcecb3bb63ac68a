# SPDX-License-Identifier: Apache-2.0
"""A real dockerd in a network namespace: its start writes some forty transactions of rules and makes a bridge."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path


class Docker:
    """A real dockerd in a named network namespace, its files in a folder of its own."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Docker:
        self._folder = tempfile.mkdtemp(prefix="sammy-dk-")
        return self

    @property
    def host(self) -> str:
        """Where it listens, as DOCKER_HOST says it."""
        return f"unix://{self._folder}/sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self._folder
        places = f"--data-root {folder}/data --exec-root {folder}/run --pidfile {folder}/pid -H {self.host}"
        # not `ip netns exec`, whose fresh /sys has no control groups
        enter = ["nsenter", f"--net=/run/netns/{self._namespace}"]
        argv = [*enter, "dockerd", *places.split(), "--storage-driver", "vfs"]
        with open(f"{folder}/log", "ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, Path(folder, "log").read_text()[-2000:]
            assert time.monotonic() < deadline, Path(folder, "log").read_text()[-2000:]
            time.sleep(0.1)

    def _answers(self) -> bool:
        asked = ["docker", "-H", self.host, "version"]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    def stop(self) -> None:
        """Stop it, and its containerd with it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def __exit__(self, *_: object) -> None:
        self.stop()
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(self._folder):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
