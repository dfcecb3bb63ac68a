# SPDX-License-Identifier: Apache-2.0
"""What came before the steps: kernel, systemd and cloud-init's stages, of this boot from systemd, of others from the
journal, which our own configuration keeps.

In a container the kernel is the host's, and its clock has run for days: the boot begins with systemd there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from cc_sammy.common import files
from cc_sammy.host.host import Host

UNITS = ("cloud-init-local", "cloud-init-main", "cloud-init", "cloud-init-network", "cloud-config", "cloud-final")
# systemd's message ids (sd-messages.h)
STARTING, STARTED = "7d4958e842da4a758f6c1cdc7b36dcc5", "39f53479d3a045ac8e11786248231fbf"
USERSPACE = "--property=UserspaceTimestampMonotonic"
MOMENTS = "--property=Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
CONTAINER = "/run/systemd/container"


class Stage(NamedTuple):
    """One stage; seconds since the kernel started."""

    name: str
    begin: float
    end: float


def of_boot(host: Host, boot_id: str) -> list[Stage]:
    """Return the boot's stages in order of time; none where neither systemd nor the journal knows them."""
    current = (files.read_text("/proc/sys/kernel/random/boot_id") or "").strip()
    if boot_id != current:
        return _in_order(_from_journal(host, boot_id), 0.0)
    manager = _properties(host, [USERSPACE])
    userspace = int(manager[0].get("UserspaceTimestampMonotonic") or 0) / 1e6 if manager else 0.0
    stages = _in_order(_from_systemd(host), userspace)
    if os.path.exists(CONTAINER) or not userspace:
        return stages
    return [Stage("kernel", 0.0, userspace), *stages] if stages else []


def _in_order(found: Iterable[Stage], userspace: float) -> list[Stage]:
    """Return the stages in order, with what systemd did before the first."""
    stages = sorted(found, key=lambda stage: stage.begin)
    if stages and userspace and stages[0].begin > userspace:
        return [Stage("systemd", userspace, stages[0].begin), *stages]
    return stages


def _properties(host: Host, words: list[str]) -> list[dict[str, str]]:
    answer = host.run(["systemctl", "show", *words], check=False, timeout=10)
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in answer.stdout.split("\n\n")
    ]


def _from_systemd(host: Host) -> list[Stage]:
    stages = []
    for found in _properties(host, [MOMENTS, *(f"{name}.service" for name in UNITS)]):
        begin, end = (
            int(found.get(f"{moment}TimestampMonotonic") or 0) / 1e6 for moment in ("InactiveExit", "ActiveEnter")
        )
        if begin:
            stages.append(Stage(found["Id"].removesuffix(".service"), begin, max(begin, end)))
    return stages


def _from_journal(host: Host, boot_id: str) -> list[Stage]:
    matches = [f"UNIT={name}.service" for name in UNITS]
    words = ["--output=json", "--quiet", f"_BOOT_ID={boot_id.replace('-', '')}", "_PID=1", *matches]
    answer = host.run(["journalctl", *words], check=False, timeout=30)
    moments: dict[tuple[str, str], float] = {}
    for line in answer.stdout.splitlines():
        entry: dict[str, Any] = json.loads(line)
        name = str(entry.get("UNIT")).removesuffix(".service")
        moments.setdefault((name, str(entry.get("MESSAGE_ID"))), int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6)
    pairs = ((name, moments.get((name, STARTING)), moments.get((name, STARTED))) for name in UNITS)
    return [Stage(name, begin, end) for name, begin, end in pairs if begin is not None and end is not None]
