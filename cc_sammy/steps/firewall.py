# SPDX-License-Identifier: Apache-2.0
"""The agent's port closed to strangers, before anything listens on it; applied at later boots without Python."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.firewall import boot_files, enforce, rollback
from cc_sammy.firewall.model import policy
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step

UNIT = "sammy-firewall.service"
TIMER = "sammy-firewall-refresh.timer"
WANTED_BY = "/etc/systemd/system/sysinit.target.wants/" + UNIT


def satisfied(host: Host, config: Config) -> str | None:
    """The rules in the kernel are the wanted ones, or were lifted for good."""
    if not config.firewall.enabled:
        return None if _kept() else "firewall.enabled is false"
    if boot_files.is_removed(host):
        # by whom and why, and what brings them back
        return (files.read_text(boot_files.REMOVED) or "").strip() or "the rules were removed"
    wanted = _wanted(host, config)
    if os.path.exists(WANTED_BY) and not enforce.check(host, wanted):
        return "the rules in the kernel are the wanted ones"
    return None


def run(host: Host, config: Config) -> None:
    """Apply the rules in one transaction, read them back, have them applied at every later boot; or lift them."""
    if not config.firewall.enabled:
        _lift(host)
        return
    # beside the apply, which waits for the kernel most of its time: systemctl takes 20 ms a call
    with ThreadPoolExecutor(1, threading.current_thread().name) as beside:
        enabled = beside.submit(_enable, host)
        enforce.apply(host, _wanted(host, config), config.firewall.input_policy)
    enabled.result()


def _enable(host: Host) -> None:
    """Have the rules loaded at every boot, and the networks refreshed daily from now on."""
    # The next boot reads the links; making PID 1 read all its units anew for them would cost 0.1 s of this one.
    host.run(["systemctl", "enable", "--quiet", "--no-reload", UNIT, TIMER])
    host.run(["systemctl", "start", "--no-block", TIMER], check=False)


def _wanted(host: Host, config: Config) -> Policy:
    """Return the configured rules, or those the agent went back to because the configured ones kept all out."""
    return rollback.in_force(host, policy.from_config(config.firewall, config.agent.port, host))


def _kept() -> list[str]:
    """Return the files by which later boots load the rules."""
    paths = (f"{boot_files.FOLDER}/{name}" for names in boot_files.FILES.values() for name in names)
    return [path for path in paths if os.path.exists(path)]


def _lift(host: Host) -> None:
    """Take the rules away as if they had never been: an operator's `sammy firewall remove` is another thing."""
    enforce.remove(host)
    host.run(["systemctl", "disable", "--quiet", "--no-reload", UNIT, TIMER])
    host.run(["systemctl", "stop", TIMER], check=False)
    for path in _kept():
        files.remove(path)
    files.remove(boot_files.REMOVED)


STEP = Step("firewall", "firewall", satisfied, run, changes_network=True)
