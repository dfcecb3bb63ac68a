# SPDX-License-Identifier: Apache-2.0
"""The agent's own begin and end as events, and how the one before it ended: a start without a stop was a death."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
from typing import Any

from sammy_agent import __version__
from sammy_agent.base.errors import AgentError
from sammy_agent.base.events import kinds
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.diagnostics.event_store.recorder import Recorder
from sammy_agent.diagnostics.event_store.store import EventStore

LOG = logging.getLogger(__name__)


def record_start(recorder: Recorder, store: EventStore, began: Timestamp, boot_id: str) -> None:
    """Tell how the last agent ended, where it was not told to end, and that this one began at `began`."""
    try:
        last = unended(store)
    except (sqlite3.Error, OSError, AgentError) as error:
        LOG.warning("how the last agent ended is not known: %s", error)
        last = None
    if last is not None:
        here = last["boot_id"] == boot_id
        why = "it was killed or it crashed" if here else "the machine went down without stopping it"
        detail = {"started_at": last["created_at"], "boot_id": last["boot_id"], **(last["detail"] or {})}
        recorder.record(kinds.AGENT_CRASHED, f"the agent before this one ended: {why}", detail=detail, at=began)
    detail = {"version": __version__, "pid": os.getpid()}
    recorder.record(kinds.AGENT_STARTED, f"sammy-agent {__version__} began", detail=detail, at=began)


def record_stop(recorder: Recorder, number: int, exit_status: int, *, restart: bool) -> None:
    """Tell that the agent ends by a signal, or begins anew by its own."""
    name = signal.Signals(number).name
    words = "begins anew: the machine is another one" if restart else f"stopped by {name}"
    recorder.record(kinds.AGENT_STOPPED, words, detail={"signal": name, "exit_status": exit_status})


def unended(store: EventStore) -> dict[str, Any] | None:
    """Return the last start that no stop came after; None when there is none. sqlite3.Error, StoreUnusable."""
    began = store.events(1, type_prefix=kinds.AGENT_STARTED.type)
    ended = store.events(1, type_prefix=kinds.AGENT_STOPPED.type)
    return began[0] if began and (not ended or ended[0]["seq"] < began[0]["seq"]) else None
