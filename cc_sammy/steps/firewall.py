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


def already_done(host: Host, config: Config) -> str | None:
    """The rules in the kernel are the wanted ones, or were removed on purpose."""
    if not config.firewall.enabled:
        return None if _kept() else "firewall.enabled is false"
    if boot_files.is_removed():
        # by whom and why, and what brings them back
        return (files.read_text(boot_files.REMOVED) or "").strip() or "the rules were removed"
    wanted = _wanted(host, config)
    if os.path.exists(WANTED_BY) and not enforce.check(host, wanted):
        return "the rules in the kernel are the wanted ones"
    return None


def run(host: Host, config: Config) -> None:
    """Apply the rules in one transaction, read them back, enable them for every later boot; or remove them."""
    if not config.firewall.enabled:
        _disable(host)
        return
    # in parallel to the apply, which mostly waits for the kernel: systemctl takes 20 ms per call
    with ThreadPoolExecutor(1, threading.current_thread().name) as pool:
        enabled = pool.submit(_enable, host)
        enforce.apply(host, _wanted(host, config), config.firewall.input_policy)
    enabled.result()


def _enable(host: Host) -> None:
    """Enable loading the rules at every boot, and refreshing the networks daily from now on."""
    # The next boot reads the links; a daemon-reload for them would cost 0.1 s of this one.
    host.run(["systemctl", "enable", "--quiet", "--no-reload", UNIT, TIMER])
    host.run(["systemctl", "start", "--no-block", TIMER], check=False)


def _wanted(host: Host, config: Config) -> Policy:
    """Return the configured rules, or those the agent rolled back to because the configured ones locked it out."""
    return rollback.effective_policy(policy.from_config(config.firewall, config.agent.port))


def _kept() -> list[str]:
    """Return the files by which later boots load the rules."""
    paths = (f"{boot_files.FOLDER}/{name}" for names in boot_files.FILES.values() for name in names)
    return [path for path in paths if os.path.exists(path)]


def _disable(host: Host) -> None:
    """Remove the rules without a trace, unlike an operator's `sammy firewall remove`."""
    enforce.remove(host)
    host.run(["systemctl", "disable", "--quiet", "--no-reload", UNIT, TIMER])
    host.run(["systemctl", "stop", TIMER], check=False)
    for path in _kept():
        files.remove(path)
    files.remove(boot_files.REMOVED)


STEP = Step("firewall", "firewall", already_done, run, changes_network=True)
