# SPDX-License-Identifier: Apache-2.0
"""System information as the wire has it. What cannot be read is left out, or the answer says why."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sammy_agent import __version__
from sammy_agent.base.runtime import files, process, procfs
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock

MAX_AGE = 5.0  # seconds
VERSIONS_MAX_AGE = 60.0  # asking devcontainer takes half a second of CPU time
DOCKER_DEADLINE, VERSION_DEADLINE = 10.0, 5.0
MAX_ERROR_CHARACTERS = 500
_JSON = "{{json .}}"
DOCKER = {
    "version": ("docker", "version", "--format", "{{.Server.Version}}"),
    "list": ("docker", "ps", "--all", "--format", _JSON),
    "stats": ("docker", "stats", "--no-stream", "--format", _JSON),
}
VERSIONS = {"nodeVersion": ["node", "--version"], "devcontainerCliVersion": ["devcontainer", "--version"]}


class SystemInfo:
    """Collects system information and caches it for some seconds. Thread-safe: concurrent callers share one answer."""

    def __init__(self, run: process.Run = process.run, clock: Clock = SYSTEM_CLOCK) -> None:
        self._run, self._clock = run, clock
        self._lock = threading.Lock()
        self._all: tuple[float, dict[str, Any]] | None = None
        self._versions: tuple[float, dict[str, Any]] | None = None

    def get(self) -> dict[str, Any]:
        """Return the answer; blocks for the programs it runs, 15 s at most."""
        with self._lock:
            if self._all is None or self._clock.monotonic() - self._all[0] >= MAX_AGE:
                collected = self._collect()
                self._all = (self._clock.monotonic(), collected)
            return self._all[1]

    def _collect(self) -> dict[str, Any]:
        with ThreadPoolExecutor(max_workers=6) as pool:
            containers = pool.submit(self._docker, pool)
            versions = self._software(pool)
            docker = containers.result()
        if docker.get("version"):
            versions = {**versions, "dockerVersion": docker["version"]}
        return {
            "cpu": _cpu(),
            "memory": _space(procfs.memory().main),
            "disk": {**_space(procfs.file_system("/").space), "mountPath": "/"},
            "network": _network(),
            "uptime": _uptime(int(self._clock.boottime())),
            "docker": docker,
            "software": versions,
            "agent": {
                "version": __version__,
                "pythonVersion": platform.python_version(),
                "threads": threading.active_count(),
                "residentBytes": procfs.resident_bytes(),
            },
        }

    def _software(self, pool: ThreadPoolExecutor) -> dict[str, Any]:
        if self._versions is None or self._clock.monotonic() - self._versions[0] >= VERSIONS_MAX_AGE:
            answers = {name: pool.submit(self._run, argv, VERSION_DEADLINE) for name, argv in VERSIONS.items()}
            found = {name: _output(answer.result()).strip().removeprefix("v") for name, answer in answers.items()}
            self._versions = (self._clock.monotonic(), {name: text for name, text in found.items() if text})
        return self._versions[1]

    def _docker(self, pool: ThreadPoolExecutor) -> dict[str, Any]:
        answers = {name: pool.submit(self._run, argv, DOCKER_DEADLINE) for name, argv in DOCKER.items()}
        version = answers["version"].result()
        if not version.ok:
            error = f"docker: {version.failure}"[:MAX_ERROR_CHARACTERS]
            return {"version": None, "containers": 0, "containerList": [], "error": error}
        stats = {row.get("ID"): row for row in _rows(_output(answers["stats"].result()))}
        listed = [_container(row, stats.get(row.get("ID"), {})) for row in _rows(_output(answers["list"].result()))]
        return {"version": version.text.strip(), "containers": len(listed), "containerList": listed}


def _output(done: process.Completed) -> str:
    return done.text if done.ok else ""


def _rows(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _container(row: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row.get("ID"),
        "name": row.get("Names"),
        "image": row.get("Image"),
        "status": row.get("Status"),
        "state": row.get("State"),
        "createdAt": row.get("CreatedAt"),
        "cpuPercent": _percent(stats.get("CPUPerc")),
        "memUsage": stats.get("MemUsage"),
        "memPercent": _percent(stats.get("MemPerc")),
    }


def _percent(text: str | None) -> float | None:
    try:
        return float((text or "").rstrip("%"))
    except ValueError:
        return None


def _cpu() -> dict[str, Any]:
    loads = os.getloadavg()
    return {
        **{f"loadAvg{minutes}": round(load, 2) for minutes, load in zip((1, 5, 15), loads, strict=True)},
        "numCpu": os.cpu_count(),
    }


def _space(space: procfs.Space) -> dict[str, Any]:
    return {
        "totalBytes": space.total,
        "usedBytes": space.used,
        "availableBytes": space.available,
        "usedPercent": space.used_percent,
    }


def _network() -> dict[str, Any]:
    name = next(iter(procfs.default_route_links()), None)
    found: dict[str, Any] = {"interface": name}
    for direction in ("rx", "tx"):
        with contextlib.suppress(OSError, ValueError):
            found[f"{direction}Bytes"] = int(files.read(f"/sys/class/net/{name}/statistics/{direction}_bytes") or "")
    return found


def _uptime(seconds: int) -> dict[str, Any]:
    days, rest = divmod(seconds, 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return {"seconds": seconds, "humanFormat": f"{days}d {hours}h {minutes}m" if days else f"{hours}h {minutes}m"}
