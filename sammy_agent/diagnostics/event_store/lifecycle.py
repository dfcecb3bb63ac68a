# SPDX-License-Identifier: Apache-2.0
"""The agent's own start and stop as events, and how the previous one ended: a start without a stop was a crash."""

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
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.diagnostics.event_store.recorder import Recorder

LOG = logging.getLogger(__name__)


def record_start(recorder: Recorder, store: EventStore, began: Timestamp, boot_id: str) -> None:
    """Record how the previous agent ended, if it was not stopped, and that this one started at `began`."""
    try:
        last = last_unclean_start(store)
    except (sqlite3.Error, OSError, AgentError) as error:
        LOG.warning("cannot find out how the previous agent ended: %s", error)
        last = None
    if last is not None:
        here = last["boot_id"] == boot_id
        why = "it was killed or it crashed" if here else "the machine went down without stopping it"
        detail = {"started_at": last["created_at"], "boot_id": last["boot_id"], **(last["detail"] or {})}
        recorder.record(kinds.AGENT_CRASHED, f"the previous agent ended: {why}", detail=detail, at=began)
    detail = {"version": __version__, "pid": os.getpid()}
    recorder.record(kinds.AGENT_STARTED, f"sammy-agent {__version__} began", detail=detail, at=began)


def record_stop(recorder: Recorder, number: int, exit_status: int, *, restart: bool) -> None:
    """Record that the agent was stopped by a signal, or restarts by itself."""
    name = signal.Signals(number).name
    words = "restarting: the machine is another one" if restart else f"stopped by {name}"
    recorder.record(kinds.AGENT_STOPPED, words, detail={"signal": name, "exit_status": exit_status})


def last_unclean_start(store: EventStore) -> dict[str, Any] | None:
    """Return the last start that was not followed by a stop, if there is one. sqlite3.Error, StoreUnusable."""
    began = store.events(EventQuery(1, type_prefix=kinds.AGENT_STARTED.type))
    ended = store.events(EventQuery(1, type_prefix=kinds.AGENT_STOPPED.type))
    return began[0] if began and (not ended or ended[0]["seq"] < began[0]["seq"]) else None
