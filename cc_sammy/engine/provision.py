# SPDX-License-Identifier: Apache-2.0
"""The story of one boot, readable top to bottom: configuration, record, run, verdict."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from cc_sammy import config as configuration
from cc_sammy.contract import journal_fields, paths
from cc_sammy.contract.journal_fields import Outcome, Status
from cc_sammy.contract.run_record import RunRecord, StepRecord, this_process
from cc_sammy.engine.failure_reporter import Beacon
from cc_sammy.engine.journal_writer import DEBUG, ERROR, NOTICE, WARNING, Journal, Lane
from cc_sammy.engine.run_record_writer import History
from cc_sammy.engine.runner import Runner, judge
from cc_sammy.errors import ConfigError, ProvisioningFailed, SammyError
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step

LOG = logging.getLogger(__name__)


def from_cloud_init(name: str, cfg: dict[str, Any], cloud: Any, cpu_before: float) -> None:
    """Run the boot steps for cloud-init.

    :param cpu_before: CPU seconds of this process before anything of ours ran.
    :raises ProvisioningFailed: a required step failed; everything independent of it has run.
    :raises ConfigError: the configuration is wrong; nothing was done.
    """
    record = provision(cfg["sammy"], Host(), str(cloud.get_instance_id()), _stages(name, cloud), cpu_before)
    if record.outcome is Outcome.FAILED:
        raise ProvisioningFailed(f"node not ready: {record.reason}", "Details: sammy status")
    if record.outcome is Outcome.DEGRADED:
        LOG.warning("sammy: node ready but degraded: %s. Details: sammy status", record.reason)


def _stages(name: str, cloud: Any) -> Callable[[str], Any]:
    """Return what opens a stage under config-sammy in cloud-init's reporter."""
    from cloudinit.reporting import events

    parent = events.ReportEventStack(f"config-{name}", "", parent=cloud.reporter)
    return lambda step: events.ReportEventStack(f"step-{step}", f"sammy step {step}", parent=parent)


def provision(
    user: Any, host: Host, instance_id: str, open_stage: Callable[[str], Any] | None, cpu_before: float
) -> RunRecord:
    """Do one run and return its record; the files and the journal hold it too."""
    record = _new_record(host, instance_id)
    teller = Teller(host, record, Lane(open_stage))
    try:
        config = configuration.load(user, host.read_text(paths.OVERRIDES), os.environ)
        _check_against_kernel(host, config)
    except ConfigError as error:
        record.outcome, record.reason = Outcome.FAILED, str(error)
        teller.config_invalid(error)
        _tell_control_plane(user, host, record)
        raise
    from cc_sammy.steps import declared, docker, nodejs_install, swap

    steps: tuple[Step, ...] = declared(
        docker_is_there=docker.is_in_image(host),
        nodejs_is_apts_work=nodejs_install.is_apts_work(host, config),
        swap_is_concerned=swap.is_concerned(host, config),
    )
    record.steps = [
        StepRecord(
            step.name,
            required=step.is_required(config),
            after=[*step.needs, *step.after],
            uses=sorted(step.uses),
        )
        for step in steps
    ]
    teller.run_started()
    _choose_mirror(host, config)
    beacon = Beacon(host, config, record)
    beacon.began()
    try:
        Runner(steps, host, config, record, teller).run()
    finally:  # a run that is stopped from outside has its verdict too
        record.outcome, record.reason = judge(record)
        record.own_cpu_ms = round((time.process_time() - cpu_before) * 1000, 1)
        record.children_cpu_ms = {name: round(ms, 1) for name, ms in sorted(host.ledger.cpu_ms.items())}
        teller.run_ended()
    if record.outcome is Outcome.FAILED:
        beacon.failed()
    return record


def _tell_control_plane(user: Any, host: Host, record: RunRecord) -> None:
    """Say why nothing was done at the control plane as well, where the configuration's own part on it is right."""
    named = user if isinstance(user, dict) else {}
    try:
        loaded = configuration.load({key: named[key] for key in ("node_id", "control_plane") if key in named})
    except ConfigError:
        return
    Beacon(host, loaded, record).failed()


def _choose_mirror(host: Host, config: configuration.Config) -> None:
    """Choose apt's mirror for the run; where that cannot be noted, the machine's own sources do."""
    from cc_sammy.system import apt_mirror

    try:
        apt_mirror.choose(host, config)
    except OSError as error:
        LOG.warning("sammy: packages.mirror is not used: %s", error)


def _check_against_kernel(host: Host, config: configuration.Config) -> None:
    """Refuse an agent port that the kernel may give to our own connections: their replies would be dropped."""
    bounds = (host.read_text("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(bounds) == 2 and int(bounds[0]) <= config.agent.port <= int(bounds[1]):
        raise ConfigError(
            [
                f"sammy.agent.port is {config.agent.port}; allowed is a port outside the kernel's "
                f"local port range {bounds[0]}-{bounds[1]} (net.ipv4.ip_local_port_range)"
            ]
        )
    token = config.control_plane.token_file
    if token is not None and not host.exists(token):
        raise ConfigError(
            [
                f'sammy.control_plane.token_file is "{token}", which does not exist; allowed is a file with the '
                "node's token (write_files in the user-data, mode 0600)"
            ]
        )


def _new_record(host: Host, instance_id: str) -> RunRecord:
    now = datetime.now(timezone.utc)
    return RunRecord(
        run_id=f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        boot_id=(host.read_text("/proc/sys/kernel/random/boot_id") or "unknown").strip(),
        instance_id=instance_id,
        started=host.boottime(),
        wall_clock=now.isoformat(timespec="milliseconds"),
        writer=this_process(),
    )


class Teller:
    """Tells files, journal and reporter what the runner reports: state first, it must never wait for the others."""

    def __init__(self, host: Host, record: RunRecord, lane: Lane) -> None:
        self._host, self._record, self._lane = host, record, lane
        self._journal = Journal()
        self.history = History(host, f"{paths.RUNS}/{record.run_id}.json")
        self._sequence = 0

    def run_started(self) -> None:
        """The run begins."""
        self._write_state()
        self._send(
            "provisioning begins", NOTICE, {"MESSAGE_ID": journal_fields.RUN_STARTED, "SAMMY_EVENT": "provision.run"}
        )

    def started(self, step: StepRecord) -> None:
        """A step begins."""
        self._write_state()
        self._send_step(step)
        self._lane.started(step.name)

    def ended(self, step: StepRecord) -> None:
        """A step has its final status; only work that was done is worth an fsync."""
        self._write_state()
        self._send_step(step)
        if step.status is not Status.SKIPPED:
            self._write_history()
        self._lane.ended(step.name, _summary(step), step.status is Status.FAILED)

    def again(self, step: StepRecord, reason: str, pause: float) -> None:
        """An attempt failed of a cause that may pass."""
        self._write_state()
        more = {
            "SAMMY_EVENT": f"provision.{step.name}",
            "SAMMY_STEP": step.name,
            "SAMMY_ATTEMPT": str(step.attempt),
            "SAMMY_REASON": reason,
        }
        self._send(f"{step.name}: attempt {step.attempt} in {pause:.0f} s, for: {reason}", NOTICE, more)

    def settled(self) -> None:
        """The node is as ready as it will be; images that nobody demands still come.

        Only the state file, which the agent reads, says so: the history's outcome is the run's, at its end. A failure
        waits for that end too, so that it is reported once and whole.
        """
        outcome, reason = judge(self._record)
        if outcome is not Outcome.FAILED:
            self._record.outcome, self._record.reason = outcome, reason
            self._write_state()
            self._send(f"node {outcome.value}; the rest goes on", NOTICE, {"SAMMY_EVENT": "provision.settled"})

    def output(self, step: str, line: str) -> None:
        """A command's line, for those who look closer."""
        self._journal.send(line, DEBUG, {"SAMMY_STEP": step, "SAMMY_RUN_ID": self._record.run_id})

    def run_ended(self) -> None:
        """The verdict, with the true wall clock of the whole."""
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
        self._write_history()
        self.history.flush()

    def config_invalid(self, error: ConfigError) -> None:
        """Nothing was done: say why, everywhere."""
        self._record.duration_ms = 0.0
        self._write_state()
        self._write_history()
        self.history.flush()
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
        """Send one event; `at` is when it happened (CLOCK_BOOTTIME), which may be a little before it is told."""
        self._sequence += 1
        own = {
            "SAMMY_RUN_ID": self._record.run_id,
            "SAMMY_SEQ": str(self._sequence),
            "SAMMY_BOOTTIME_US": str(int((at or self._host.boottime()) * 1_000_000)),
        }
        self._journal.send(message, priority, {**own, **more})

    def _write_state(self) -> None:
        """Write the level; a full disk must not stop a boot, and this file is on a tmpfs."""
        try:
            self._host.write_text(paths.STATE, self._record.to_json())
        except (OSError, SammyError) as error:
            LOG.debug("sammy: could not write %s: %s", paths.STATE, error)

    def _write_history(self) -> None:
        record = self._record
        if record.duration_ms is None:
            record = replace(record, outcome=Outcome.RUNNING, reason="")
        self.history.write(record.to_json())


def _summary(step: StepRecord) -> str:
    took = f" {step.duration_ms:.0f} ms" if step.duration_ms is not None else ""
    return f"{step.name} {step.status.value}{took}{f' ({step.reason})' if step.reason else ''}"
