# SPDX-License-Identifier: Apache-2.0
"""One provisioning run, readable top to bottom: configuration, record, steps, outcome."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from cc_sammy import config as configuration
from cc_sammy.common import files
from cc_sammy.common.run_records import process_identity
from cc_sammy.contract import paths
from cc_sammy.contract.run_record import Outcome, RunRecord, StepRecord
from cc_sammy.engine.cloud_init_stages import StageTimeline
from cc_sammy.engine.failure_reporter import FailureReporter
from cc_sammy.engine.run_reporter import RunReporter
from cc_sammy.engine.runner import Runner, overall_outcome
from cc_sammy.errors import ConfigError, ProvisioningFailed
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
    """Do one run and return its record; the files and the journal have it too."""
    record = _new_record(host, instance_id)
    reporter = RunReporter(host, record, StageTimeline(open_stage))
    try:
        config = configuration.load(user, files.read_text(paths.OVERRIDES), os.environ)
        _check_against_kernel(config)
    except ConfigError as error:
        record.outcome, record.reason = Outcome.FAILED, str(error)
        reporter.config_invalid(error)
        _report_invalid_config(user, host, record)
        raise
    from cc_sammy.steps import declared, docker, nodejs_install, swap

    steps: tuple[Step, ...] = declared(
        docker_in_image=docker.is_in_image(host),
        nodejs_by_apt=nodejs_install.comes_by_apt(host, config),
        swap_is_applicable=swap.is_applicable(config),
    )
    record.steps = [
        StepRecord(
            step.name,
            required=step.is_required(config),
            after=[*step.needs, *step.after],
            uses=sorted(step.exclusive_resources),
        )
        for step in steps
    ]
    reporter.run_started()
    _select_mirror(config)
    failures = FailureReporter(host, config, record)
    failures.report_start()
    try:
        Runner(steps, host, config, record, reporter).run()
    finally:  # a run that is stopped from outside has an outcome too
        record.outcome, record.reason = overall_outcome(record)
        record.own_cpu_ms = round((time.process_time() - cpu_before) * 1000, 1)
        record.children_cpu_ms = {name: round(ms, 1) for name, ms in sorted(host.usage_totals.cpu_ms.items())}
        reporter.run_ended()
    if record.outcome is Outcome.FAILED:
        failures.report_failure()
    return record


def _report_invalid_config(user: Any, host: Host, record: RunRecord) -> None:
    """Report to the control plane why nothing was done, where the configuration's part about it is valid."""
    named = user if isinstance(user, dict) else {}
    try:
        loaded = configuration.load({key: named[key] for key in ("node_id", "control_plane") if key in named})
    except ConfigError:
        return
    FailureReporter(host, loaded, record).report_failure()


def _select_mirror(config: configuration.Config) -> None:
    """Select apt's mirror for the run; where that cannot be stored, the machine's own sources are used."""
    from cc_sammy.system import apt_mirror

    try:
        apt_mirror.select(config)
    except OSError as error:
        LOG.warning("sammy: packages.mirror is not used: %s", error)


def _check_against_kernel(config: configuration.Config) -> None:
    """Refuse an agent port in the kernel's local port range (replies to our own connections would be dropped), and a
    token file that does not exist.
    """
    bounds = (files.read_text("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(bounds) == 2 and int(bounds[0]) <= config.agent.port <= int(bounds[1]):
        raise ConfigError(
            [
                f"sammy.agent.port is {config.agent.port}; allowed is a port outside the kernel's "
                f"local port range {bounds[0]}-{bounds[1]} (net.ipv4.ip_local_port_range)"
            ]
        )
    token = config.control_plane.token_file
    if token is not None and not os.path.exists(token):
        raise ConfigError(
            [
                f'sammy.control_plane.token_file is "{token}", which does not exist; allowed is a file with the '
                "node's token (write_files in the user-data, mode 0600)"
            ]
        )


def _new_record(host: Host, instance_id: str) -> RunRecord:
    now = datetime.now(timezone.utc)
    return RunRecord(
        run_id=f"{now:%Y%m%dT%H%M%S}-{os.urandom(4).hex()}",
        boot_id=(files.read_text("/proc/sys/kernel/random/boot_id") or "unknown").strip(),
        instance_id=instance_id,
        started=host.boottime(),
        wall_clock=now.isoformat(timespec="milliseconds"),
        writer=process_identity(),
    )
