# SPDX-License-Identifier: Apache-2.0
"""The journal kept over reboots and bounded: one drop-in, one restart, only on change."""

from __future__ import annotations

from cc_sammy.common import files
from cc_sammy.config import Config
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step

DROP_IN = "/etc/systemd/journald.conf.d/60-sammy.conf"


def drop_in(config: Config) -> str | None:
    """Return the drop-in's text; None where journald is left as the image has it."""
    options = config.journald
    if options.storage == "keep":
        return None
    return f"""# Written by cloud-init-sammy from the sammy: key; sammy.journald.* change it.
[Journal]
Storage={options.storage}
SystemMaxUse={options.system_max_use}
SystemKeepFree={options.system_keep_free}
RateLimitIntervalSec=30s
RateLimitBurst={options.rate_limit_burst}
"""


def already_done(host: Host, config: Config) -> str | None:
    """The drop-in is as wanted, or neither wanted nor present."""
    if files.read_text(DROP_IN) != drop_in(config):
        return None
    return "journald.storage is keep" if config.journald.storage == "keep" else "journald is configured as wanted"


def run(host: Host, config: Config) -> None:
    """Write or remove the drop-in, and restart journald; systemd holds its sockets, so no message is lost."""
    before = files.read_text(DROP_IN)
    _put(drop_in(config))
    try:
        host.run(["systemctl", "restart", "systemd-journald.service"], timeout=30)
        if config.journald.storage == "persistent":
            host.run(["journalctl", "--flush"], timeout=30)
    except Exception:
        _put(before)  # otherwise the next run would take the drop-in for a restart that never happened
        raise


def _put(text: str | None) -> None:
    if text is None:
        files.remove(DROP_IN)
    else:
        files.write_text(DROP_IN, text)


STEP = Step("journald-config", "journald", already_done, run, after=("firewall",))
