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
from sammy_agent.base.runtime.paths import OWN, Places

LOG = logging.getLogger(__name__)
# cloud-init's own word in this boot, whether it will speak at all, and its word of the last boot
THIS_BOOT = "/run/cloud-init/.instance-id"
ENABLED = "/run/cloud-init/enabled"
LAST_BOOT = "/var/lib/cloud/data/instance-id"
PATIENCE = 60.0


def current(places: Places, *, may_be_old: bool) -> str | None:
    """Return the machine's instance id, None while it is not known; `may_be_old` takes the last boot's word too."""
    told = files.read(places.at(THIS_BOOT))
    if told and told.strip():
        return told.strip()
    try:
        record = run_records.load(places.state)
    except (ValueError, KeyError, TypeError, OSError):
        record = None
    if record is not None:
        return record.instance_id
    told = files.read(places.at(LAST_BOOT)) if may_be_old else None
    return told.strip() if told and told.strip() else None


def settle(places: Places, wait: Callable[[float], bool], patience: float = PATIENCE) -> str | None:
    """Find out the instance id and discard what belongs to another; return it, None when nobody knows.

    The caller then calls `remember`.

    :param wait: sleeps so many seconds and returns True when the agent is to stop.
    """
    remembered = (files.read(places.instance) or "").strip() or None
    end = time.monotonic() + patience
    while True:
        will_be_told = remembered is not None and os.path.exists(places.at(ENABLED))
        found = current(places, may_be_old=not will_be_told or time.monotonic() >= end)
        if found is not None or not will_be_told or time.monotonic() >= end:
            break
        if wait(0.2):
            return remembered
    if found is None or found == remembered:
        return remembered
    if remembered is not None:
        LOG.warning("instance-id was %s and is %s: discarding token, key, store and outcome", remembered, found)
        discard(places)
    return found


def remember(places: Places, found: str | None) -> None:
    """Keep the instance id that was settled. OSError when the disk does not take it.

    Only after the discarding: a kill in between does it all once more.
    """
    if found is not None and (files.read(places.instance) or "").strip() != found:
        files.write(places.instance, found + "\n")


def discard(places: Places) -> None:
    """Remove what the agent kept, and the TLS key if the agent made it."""
    if os.path.exists(places.tls_mark):
        files.remove(places.tls_key)
        files.remove(places.tls_certificate)
    files.remove(places.ready_acknowledged)
    kept = {os.path.basename(places.instance)}
    for path in glob.glob(os.path.join(places.at(OWN), "*")):
        if os.path.basename(path) in kept:
            continue
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            files.remove(path)
