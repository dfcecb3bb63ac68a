# SPDX-License-Identifier: Apache-2.0
"""Reports a run as it happens: state file first, then journal, run record and cloud-init's reporter."""

from __future__ import annotations

import logging
from dataclasses import replace

from cc_sammy.common import files
from cc_sammy.contract import journal_fields, paths
from cc_sammy.contract.run_record import Outcome, RunRecord, Status, StepRecord
from cc_sammy.engine.cloud_init_stages import StageTimeline
from cc_sammy.engine.journal_writer import DEBUG, ERROR, NOTICE, WARNING, JournalWriter
from cc_sammy.engine.run_record_writer import RunRecordWriter
from cc_sammy.engine.runner import overall_outcome
from cc_sammy.errors import ConfigError
from cc_sammy.host.host import Host

LOG = logging.getLogger(__name__)


class RunReporter:
    """Passes the runner's notifications on to files, journal and cloud-init; the state file waits for none of them."""

    def __init__(self, host: Host, record: RunRecord, timeline: StageTimeline) -> None:
        self._host, self._record, self._timeline = host, record, timeline
        self._journal = JournalWriter()
        self.record_writer = RunRecordWriter(f"{paths.RUNS}/{record.run_id}.json")
        self._sequence = 0

    def run_started(self) -> None:
        """The run starts."""
        self._write_state()
        self._send(
            "provisioning started", NOTICE, {"MESSAGE_ID": journal_fields.RUN_STARTED, "SAMMY_EVENT": "provision.run"}
        )

    def started(self, step: StepRecord) -> None:
        """A step starts."""
        self._write_state()
        self._send_step(step)
        self._timeline.started(step.name)

    def ended(self, step: StepRecord) -> None:
        """A step has its final status; only work that was done is worth an fsync."""
        self._write_state()
        self._send_step(step)
        if step.status is not Status.SKIPPED:
            self._write_record()
        self._timeline.ended(step.name, _summary(step), step.status is Status.FAILED)

    def retrying(self, step: StepRecord, reason: str, delay: float) -> None:
        """An attempt failed for a transient cause."""
        self._write_state()
        more = {
            "SAMMY_EVENT": f"provision.{step.name}",
            "SAMMY_STEP": step.name,
            "SAMMY_ATTEMPT": str(step.attempt),
            "SAMMY_REASON": reason,
        }
        self._send(f"{step.name}: attempt {step.attempt} in {delay:.0f} s, because: {reason}", NOTICE, more)

    def ready_early(self) -> None:
        """All steps that block readiness have finished; optional image pulls continue.

        Only the state file, which the agent reads, says so: the run record gets its outcome at the run's end. So does a
        failure, so that it is reported once and completely.
        """
        outcome, reason = overall_outcome(self._record)
        if outcome is not Outcome.FAILED:
            self._record.outcome, self._record.reason = outcome, reason
            self._write_state()
            self._send(f"node {outcome.value}; optional steps continue", NOTICE, {"SAMMY_EVENT": "provision.settled"})

    def output(self, step: str, line: str) -> None:
        """A command printed a line; kept at priority debug."""
        self._journal.send(line, DEBUG, {"SAMMY_STEP": step, "SAMMY_RUN_ID": self._record.run_id})

    def run_ended(self) -> None:
        """The run ended: its outcome, with the wall-clock duration of the whole."""
        record = self._record
        record.duration_ms = round((self._host.boottime() - record.started) * 1000, 3)
        status = Status.FAILED if record.outcome is Outcome.FAILED else Status.COMPLETED
        priority = {Outcome.FAILED: ERROR, Outcome.DEGRADED: WARNING}.get(record.outcome, NOTICE)
        self._send(
            f"provisioning ended: {record.outcome.value}{': ' if record.reason else ''}{record.reason}",
            priority,
            {
                "MESSAGE_ID": journal_fields.RUN_ENDED,
                "SAMMY_EVENT": "provision.all",
                "SAMMY_STEP": "all",
                "SAMMY_STATUS": status.value,
                "SAMMY_DURATION_MS": f"{record.duration_ms:.3f}",
                "SAMMY_REASON": record.reason,
            },
        )
        self._journal.flush()
        record.journal_lost = self._journal.lost
        self._write_state()
        self._write_record()
        self.record_writer.flush()

    def config_invalid(self, error: ConfigError) -> None:
        """The configuration is invalid and nothing was done: report why, everywhere."""
        self._record.duration_ms = 0.0
        self._write_state()
        self._write_record()
        self.record_writer.flush()
        self._send(str(error), ERROR, {"MESSAGE_ID": journal_fields.CONFIG_INVALID, "SAMMY_EVENT": "provision.config"})
        self._journal.flush()

    def _send_step(self, step: StepRecord) -> None:
        more = {
            "MESSAGE_ID": journal_fields.MESSAGE_ID[step.status],
            "SAMMY_EVENT": f"provision.{step.name}",
            "SAMMY_STEP": step.name,
            "SAMMY_STATUS": step.status.value,
            "SAMMY_ATTEMPT": str(step.attempt),
        }
        if step.duration_ms is not None:
            more["SAMMY_DURATION_MS"] = f"{step.duration_ms:.3f}"
        if step.reason:
            more["SAMMY_REASON"] = step.reason
        used = {name: getattr(step, key) for name, key in journal_fields.USAGE_FIELDS.items()}
        more.update({name: str(value) for name, value in used.items() if value is not None})
        at = step.started
        if at is not None and step.duration_ms is not None:
            at += step.duration_ms / 1000
        self._send(_summary(step), ERROR if step.status is Status.FAILED else NOTICE, more, at)

    def _send(self, message: str, priority: int, more: dict[str, str], at: float | None = None) -> None:
        """Send one event; `at` is when it happened (CLOCK_BOOTTIME), which may be a little earlier."""
        self._sequence += 1
        own = {
            "SAMMY_RUN_ID": self._record.run_id,
            "SAMMY_SEQ": str(self._sequence),
            "SAMMY_BOOTTIME_US": str(int((at or self._host.boottime()) * 1_000_000)),
        }
        self._journal.send(message, priority, {**own, **more})

    def _write_state(self) -> None:
        """Write the state file; a full disk must not stop a boot, and this file is on a tmpfs."""
        try:
            files.write_text(paths.STATE, self._record.to_json())
        except OSError as error:
            LOG.debug("sammy: could not write %s: %s", paths.STATE, error)

    def _write_record(self) -> None:
        record = self._record
        if record.duration_ms is None:
            record = replace(record, outcome=Outcome.RUNNING, reason="")
        self.record_writer.write(record.to_json())


def _summary(step: StepRecord) -> str:
    took = f" {step.duration_ms:.0f} ms" if step.duration_ms is not None else ""
    return f"{step.name} {step.status.value}{took}{f' ({step.reason})' if step.reason else ''}"
