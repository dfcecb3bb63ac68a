# SPDX-License-Identifier: Apache-2.0
"""The machine in figures, as the wire has them. What cannot be had is left out or says why; nothing is made up."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sammy_agent import __version__
from sammy_agent.base.runtime import files

KEPT = 5.0  # seconds that an answer is good for
KEPT_VERSIONS = 60.0  # devcontainer's asks half a second of a processor
DOCKER_DEADLINE, VERSION_DEADLINE = 10.0, 5.0
VERSIONS = {"nodeVersion": ["node", "--version"], "devcontainerCliVersion": ["devcontainer", "--version"]}


class SystemInfo:
    """Gathers, and keeps what it gathered for some seconds. Thread-safe: who comes meanwhile gets the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[float, dict[str, Any]] | None = None
        self._versions: tuple[float, dict[str, Any]] | None = None

    def get(self) -> dict[str, Any]:
        """Return the answer; blocks for programs, at most some 15 s."""
        with self._lock:
            if self._all is None or time.monotonic() - self._all[0] >= KEPT:
                gathered = self._gather()
                self._all = (time.monotonic(), gathered)
            return self._all[1]

    def _gather(self) -> dict[str, Any]:
        with ThreadPoolExecutor(max_workers=6) as pool:
            docker = pool.submit(_docker, pool)
            versions = self._software(pool)
            told = docker.result()
        if told.get("version"):
            versions = {**versions, "dockerVersion": told["version"]}
        return {
            "cpu": _cpu(),
            "memory": _memory(),
            "disk": _disk("/"),
            "network": _network(),
            "uptime": _uptime(),
            "docker": told,
            "software": versions,
            "agent": {
                "version": __version__,
                "pythonVersion": platform.python_version(),
                "threads": threading.active_count(),
                "residentBytes": _resident(),
            },
        }

    def _software(self, pool: ThreadPoolExecutor) -> dict[str, Any]:
        if self._versions is None or time.monotonic() - self._versions[0] >= KEPT_VERSIONS:
            asked = {name: pool.submit(_run, words, VERSION_DEADLINE) for name, words in VERSIONS.items()}
            found = {name: answer.result()[0].strip().removeprefix("v") for name, answer in asked.items()}
            self._versions = (time.monotonic(), {name: text for name, text in found.items() if text})
        return self._versions[1]


def _run(words: Sequence[str], deadline: float) -> tuple[str, str]:
    """Return what a program prints, and "" or why it printed nothing of use."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=deadline, check=False, errors="replace")
    except FileNotFoundError:
        return "", f"there is no {words[0]} on this machine"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{words[0]}: {error.strerror if isinstance(error, OSError) else f'no answer in {deadline:.0f} s'}"
    if done.returncode != 0:
        return "", " ".join(done.stderr.split())[:500] or f"{words[0]} ended with status {done.returncode}"
    return done.stdout, ""


def _docker(pool: ThreadPoolExecutor) -> dict[str, Any]:
    every = "{{json .}}"
    asked = {
        "version": ["docker", "version", "--format", "{{.Server.Version}}"],
        "list": ["docker", "ps", "--all", "--format", every],
        "stats": ["docker", "stats", "--no-stream", "--format", every],
    }
    answers = {name: pool.submit(_run, words, DOCKER_DEADLINE) for name, words in asked.items()}
    version, problem = answers["version"].result()
    if problem:
        return {"version": None, "containers": 0, "containerList": [], "error": problem}
    stats = {row.get("ID"): row for row in _rows(answers["stats"].result()[0])}
    listed = [_container(row, stats.get(row.get("ID"), {})) for row in _rows(answers["list"].result()[0])]
    return {"version": version.strip(), "containers": len(listed), "containerList": listed}


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


def _memory() -> dict[str, Any]:
    with open("/proc/meminfo", encoding="ascii") as file:
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    total, available = values["MemTotal"], values["MemAvailable"]
    return _room(total, total - available, available)


def _disk(path: str) -> dict[str, Any]:
    disk = os.statvfs(path)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    # as df does: what root alone may use is no room
    return {**_room(disk.f_blocks * disk.f_frsize, used, disk.f_bavail * disk.f_frsize), "mountPath": path}


def _room(total: int, used: int, available: int) -> dict[str, Any]:
    percent = round(100 * used / max(1, used + available), 2)
    return {"totalBytes": total, "usedBytes": used, "availableBytes": available, "usedPercent": percent}


def _network() -> dict[str, Any]:
    name = _default_interface()
    found: dict[str, Any] = {"interface": name}
    for direction in ("rx", "tx"):
        with contextlib.suppress(OSError, ValueError):
            found[f"{direction}Bytes"] = int(files.read(f"/sys/class/net/{name}/statistics/{direction}_bytes") or "")
    return found


def _default_interface() -> str | None:
    """Return the interface of the default route, of IPv4 before IPv6."""
    with contextlib.suppress(OSError), open("/proc/net/route", encoding="ascii") as file:
        for fields in (line.split() for line in file):
            if len(fields) > 7 and fields[1] == fields[7] == "00000000":
                return fields[0]
    with contextlib.suppress(OSError), open("/proc/net/ipv6_route", encoding="ascii") as file:
        for fields in (line.split() for line in file):
            if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
                return fields[9]
    return None


def _uptime() -> dict[str, Any]:
    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    days, rest = divmod(seconds, 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return {"seconds": seconds, "humanFormat": f"{days}d {hours}h {minutes}m" if days else f"{hours}h {minutes}m"}


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
