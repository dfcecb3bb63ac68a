# SPDX-License-Identifier: Apache-2.0
"""Whose disk is this? A new instance-id means a copied disk: nothing the agent kept of the old machine may be used.

A copied node that beats with the old one's token is two machines in one; so while cloud-init has not yet said in this
boot who the machine is, an agent that has something to lose waits, for a bounded time.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import time
from collections.abc import Callable

from cc_sammy.common import run_records
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import STATE_DIR, Paths

LOG = logging.getLogger(__name__)
# cloud-init's own word in this boot, whether it will speak at all, and its word of the last boot
THIS_BOOT = "/run/cloud-init/.instance-id"
ENABLED = "/run/cloud-init/enabled"
LAST_BOOT = "/var/lib/cloud/data/instance-id"
PATIENCE = 60.0


def current(paths: Paths, *, may_be_old: bool) -> str | None:
    """Return the machine's instance id, None while it is not known; `may_be_old` takes the last boot's word too."""
    told = files.read(paths.under_root(THIS_BOOT))
    if told and told.strip():
        return told.strip()
    try:
        record = run_records.load(paths.state)
    except (ValueError, KeyError, TypeError, OSError):
        record = None
    if record is not None:
        return record.instance_id
    told = files.read(paths.under_root(LAST_BOOT)) if may_be_old else None
    return told.strip() if told and told.strip() else None


def settle(paths: Paths, wait: Callable[[float], bool], patience: float = PATIENCE) -> str | None:
    """Find out the instance id and discard what belongs to another; return it, None when nobody knows.

    The caller then calls `remember`.

    :param wait: sleeps so many seconds and returns True when the agent is to stop.
    """
    remembered = (files.read(paths.instance) or "").strip() or None
    end = time.monotonic() + patience
    while True:
        will_be_told = remembered is not None and os.path.exists(paths.under_root(ENABLED))
        found = current(paths, may_be_old=not will_be_told or time.monotonic() >= end)
        if found is not None or not will_be_told or time.monotonic() >= end:
            break
        if wait(0.2):
            return remembered
    if found is None or found == remembered:
        return remembered
    if remembered is not None:
        LOG.warning("instance-id was %s and is %s: discarding token, key, store and outcome", remembered, found)
        discard(paths)
    return found


def remember(paths: Paths, found: str | None) -> None:
    """Keep the instance id that was settled. OSError when the disk does not take it.

    Only after the discarding: a kill in between does it all once more.
    """
    if found is not None and (files.read(paths.instance) or "").strip() != found:
        files.write(paths.instance, found + "\n")


def discard(paths: Paths) -> None:
    """Remove what the agent kept, and the TLS key if the agent made it."""
    if os.path.exists(paths.tls_mark):
        files.remove(paths.tls_key)
        files.remove(paths.tls_certificate)
    files.remove(paths.ready_acknowledged)
    kept = {os.path.basename(paths.instance)}
    for path in glob.glob(os.path.join(paths.under_root(STATE_DIR), "*")):
        if os.path.basename(path) in kept:
            continue
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            files.remove(path)
