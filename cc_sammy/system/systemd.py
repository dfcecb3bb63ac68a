# SPDX-License-Identifier: Apache-2.0
"""systemd units as the steps need them: their properties, and starts that never block.

A blocking start of a unit that is ordered after cloud-init deadlocks the boot, so units are started with --no-block and
polled until they are active.
"""

from __future__ import annotations

from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host


def unit_properties(host: Host, unit: str) -> dict[str, str]:
    """Return the unit's properties: LoadState, ActiveState, SubState, UnitFileState, InvocationID."""
    properties = "LoadState,ActiveState,SubState,UnitFileState,InvocationID,Result"
    answer = host.run(["systemctl", "show", unit, "--property", properties], timeout=30, check=False, quiet=True)
    return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)


def is_enabled_and_active(host: Host, unit: str) -> bool:
    """Return whether the unit is active and enabled."""
    state = unit_properties(host, unit)
    return state.get("ActiveState") == "active" and state.get("UnitFileState") in ("enabled", "static")


def enable_and_start(host: Host, unit: str, *, seconds: float = 60.0) -> None:
    """Enable the unit and start it without blocking; wait until it is active.

    :raises StepFailed: it failed, or is not active in time; with where to look.
    """
    # Links for the next boot: a daemon-reload for them would cost this one 0.12 s, in which PID 1 does not respond.
    host.run(["systemctl", "enable", "--quiet", "--no-reload", unit], timeout=60)
    host.run(["systemctl", "start", "--no-block", unit], timeout=60)
    wait_active(host, unit, seconds)


def wait_active(host: Host, unit: str, seconds: float) -> None:
    """Poll until the unit is active. StepFailed when it failed or is not active in time."""
    end = host.boottime() + seconds
    while True:
        state = unit_properties(host, unit)
        if state.get("ActiveState") == "active":
            return
        if state.get("ActiveState") == "failed":
            how = state.get("Result", "unknown")
            raise StepFailed(f"{unit} failed ({how})", f"See journalctl -b -u {unit}")
        if host.boottime() > end:
            now = f"{state.get('ActiveState')}/{state.get('SubState')}"
            raise StepFailed(f"{unit} is {now} after {seconds:.0f} s", f"Look at systemctl status {unit}")
        host.sleep(0.05)
