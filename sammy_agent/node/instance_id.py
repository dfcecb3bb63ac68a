# SPDX-License-Identifier: Apache-2.0
"""Detects a cloned disk: with a new instance-id, nothing that the agent stored on the old machine may be used.

A clone that sends heartbeats with the old node's token makes two machines one; so until cloud-init has told this boot's
instance-id, an agent with stored state waits, for a bounded time.
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
# cloud-init's id of this boot, whether it runs at all, and its id of the previous boot
THIS_BOOT = "/run/cloud-init/.instance-id"
ENABLED = "/run/cloud-init/enabled"
LAST_BOOT = "/var/lib/cloud/data/instance-id"
WAIT_SECONDS = 60.0


def current(paths: Paths, *, allow_previous_boot: bool) -> str | None:
    """Return the machine's instance id, None while it is not known.

    :param allow_previous_boot: also accept the id recorded by the previous boot.
    """
    told = files.read(paths.under_root(THIS_BOOT))
    if told and told.strip():
        return told.strip()
    try:
        record = run_records.load(paths.state)
    except (ValueError, KeyError, TypeError, OSError):
        record = None
    if record is not None:
        return record.instance_id
    told = files.read(paths.under_root(LAST_BOOT)) if allow_previous_boot else None
    return told.strip() if told and told.strip() else None


def resolve(paths: Paths, wait: Callable[[float], bool], patience: float = WAIT_SECONDS) -> str | None:
    """Find out the instance id and wipe the state of another one; return it, None when it is not known.

    The caller then calls `persist`.

    :param wait: sleeps so many seconds and returns True when the agent is to stop.
    """
    stored = (files.read(paths.instance) or "").strip() or None
    end = time.monotonic() + patience
    while True:
        will_be_known = stored is not None and os.path.exists(paths.under_root(ENABLED))
        found = current(paths, allow_previous_boot=not will_be_known or time.monotonic() >= end)
        if found is not None or not will_be_known or time.monotonic() >= end:
            break
        if wait(0.2):
            return stored
    if found is None or found == stored:
        return stored
    if stored is not None:
        LOG.warning("instance-id was %s and is %s: wiping token, key, databases and outcome", stored, found)
        wipe_state(paths)
    return found


def persist(paths: Paths, found: str | None) -> None:
    """Store the resolved instance id. OSError when it cannot be written.

    Only after the wiping: a kill in between repeats both.
    """
    if found is not None and (files.read(paths.instance) or "").strip() != found:
        files.write(paths.instance, found + "\n")


def wipe_state(paths: Paths) -> None:
    """Remove the agent's state, and the TLS key if the agent made it."""
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
