# SPDX-License-Identifier: Apache-2.0
"""The journal kept over reboots and bounded: one drop-in, one restart, only on change."""

from __future__ import annotations

from cc_sammy.config import Config
from cc_sammy.host import Host
from cc_sammy.plan import Step

DROP_IN = "/etc/systemd/journald.conf.d/60-sammy.conf"


def drop_in(config: Config) -> str:
    """Return the drop-in's text."""
    options = config.journald
    return f"""# Written by cloud-init-sammy from the sammy: key; sammy.journald.* change it.
[Journal]
Storage={options.storage}
SystemMaxUse={options.system_max_use}
SystemKeepFree={options.system_keep_free}
RateLimitIntervalSec=30s
RateLimitBurst={options.rate_limit_burst}
"""


def satisfied(host: Host, config: Config) -> str | None:
    """The drop-in stands as wanted, or is not wanted."""
    if config.journald.storage == "keep":
        return "journald.storage is keep"
    return "journald is configured so" if host.read_text(DROP_IN) == drop_in(config) else None


def run(host: Host, config: Config) -> None:
    """Write the drop-in and restart journald; its sockets stay open in systemd, so no message is lost."""
    text = drop_in(config)
    try:
        host.write_text(DROP_IN, text)
        host.run(["systemctl", "restart", "systemd-journald.service"], timeout=30)
        if config.journald.storage == "persistent":
            host.run(["journalctl", "--flush"], timeout=30)
    except Exception:
        host.remove(DROP_IN)  # else a second run would take the drop-in for a restart that never came
        raise


STEP = Step("journald-config", "journald", satisfied, run, after=("firewall",))
