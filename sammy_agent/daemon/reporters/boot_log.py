# SPDX-License-Identifier: Apache-2.0
"""Reports boot steps as they happen, and the boot logs of workspaces, through the outbox.

SAM has a boot log for workspaces alone: nothing of a node's provisioning is seen before it is over. The node's door is
ours; a control plane without it is asked again once an hour. An entry's id is made from what it is, so that an agent
that was restarted says nothing twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.wire.statuses import BOOT_LOG_STATUSES
from sammy_agent.daemon.outbox.channels import NODE_BOOT_LOG, WORKSPACE_BOOT_LOG, Lane, NewRow, Priority
from sammy_agent.daemon.outbox.queue import Outbox, OutboxUnavailable
from sammy_agent.daemon.reporters.messages import replace_lone_surrogates
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger
from sammy_agent.diagnostics.event_store.from_run_record import events_from_run_record, wall_clock_us
from sammy_agent.node.provisioning import ProvisioningState

LOG = logging.getLogger(__name__)
MAX_TEXT_CHARS = 2000  # of a message or a detail
WHOLE_RUN = "all"


class EntryInvalid(AgentError):
    """An entry that no control plane would accept: the caller has a bug."""

    code = Code.BOOT_LOG_INVALID


class BootLogReporter(Reporter):
    """Puts the start and the end of each step into the outbox once."""

    triggers = (Trigger.PROVISIONING,)

    def __init__(self, node: str, level: Callable[[], ProvisioningState], outbox: Outbox) -> None:
        super().__init__("boot-log")
        self._lane = Lane(NODE_BOOT_LOG.name, node)
        self._level, self._outbox = level, outbox
        self._backoff = Backoff()
        self._run = ""
        self._said: set[str] = set()

    def run_once(self) -> float | None:
        """Add what is new."""
        record = self._level().record
        if record is None:
            return None
        if record.run_id != self._run:
            self._run, self._said = record.run_id, set()
        new = [row for row in rows(record) if row.id not in self._said]
        if new:
            try:
                self._outbox.add(self._lane, new)
            except OutboxUnavailable as error:
                LOG.warning("the boot log will be retried: %s", error)
                return self._backoff.next_delay()
            self._said |= {row.id for row in new}
        self._backoff.reset()
        return None


def add_entry(outbox: Outbox, workspace: str, entry: dict[str, Any]) -> None:
    """Store an entry of a workspace's own boot log: step, status, timestamp, message and, if there is one, detail.

    :raises EntryInvalid: names the key that is wrong.
    :raises OutboxUnavailable: the disk takes nothing.
    """
    for name in ("id", "step", "timestamp"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise EntryInvalid(f"a boot log entry has no valid {name}")
    if entry.get("status") not in BOOT_LOG_STATUSES:
        raise EntryInvalid(
            f"a boot log entry's status is {entry.get('status')!r}; allowed is {', '.join(BOOT_LOG_STATUSES)}"
        )
    body = {"step": entry["step"], "status": entry["status"], "message": _short(entry.get("message", ""))}
    if entry.get("detail") is not None:
        body["detail"] = _short(entry["detail"])
    weight = Priority.HIGH if entry["status"] == "failed" else Priority.PROGRESS
    row = NewRow(entry["id"], _json({**body, "timestamp": entry["timestamp"]}), weight)
    outbox.add(Lane(WORKSPACE_BOOT_LOG.name, workspace), [row])


def rows(record: RunRecord) -> Iterator[NewRow]:
    """Yield a run's entries in their order in time, the whole run's last. ValueError: its wall clock is not valid."""
    for event in sorted(events_from_run_record(record), key=lambda event: event.created_at):
        detail: dict[str, Any] = {"attempt": event.attempt}
        if event.duration_us is not None:
            detail["durationMs"] = event.duration_us / 1000
        reason = event.message.removeprefix(f"{event.step} {event.status}").removeprefix(": ")
        yield _row(str(event.key), event.step, event.status, reason, detail, event.created_at)
    if record.outcome is not Outcome.RUNNING:
        failed = record.outcome is Outcome.FAILED
        yield _row(
            f"{record.run_id}/{WHOLE_RUN}/{record.outcome.value}",
            WHOLE_RUN,
            (Status.FAILED if failed else Status.COMPLETED).value,
            record.reason,
            {"outcome": record.outcome.value, "durationMs": record.duration_ms},
            wall_clock_us(record, record.started + (record.duration_ms or 0.0) / 1000),
        )


def _row(id: str, step: str, status: str, message: str, detail: dict[str, Any], at: int) -> NewRow:  # noqa: PLR0917
    body = {
        "id": id,
        "step": step,
        "status": status,
        "message": _short(message),
        "detail": _json(detail),
        "timestamp": datetime.fromtimestamp(at / 1e6, timezone.utc).isoformat(timespec="milliseconds"),
    }
    return NewRow(id, _json(body), Priority.HIGH if status == Status.FAILED.value else Priority.PROGRESS)


def _short(text: object) -> str:
    words = replace_lone_surrogates(str(text))
    return words if len(words) <= MAX_TEXT_CHARS else f"{words[: MAX_TEXT_CHARS - 1]}…"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
