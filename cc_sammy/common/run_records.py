# SPDX-License-Identifier: Apache-2.0
"""The run records on disk, read back: which one is this boot's, and what a record says whose run is gone."""

from __future__ import annotations

import glob
import os

from cc_sammy.contract import paths
from cc_sammy.contract.run_record import Outcome, RunRecord, Status


def process_identity(pid: int | str = "self") -> str:
    """Return what identifies a process within this boot, although pids are reused: pid and start time.

    Empty when there is none of that pid, or only a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            number, _, rest = file.read().partition(" ")
    except OSError:
        return ""
    fields = rest.rpartition(")")[2].split()  # from the third on (proc_pid_stat(5)): state, ..., starttime
    return "" if fields[0] == "Z" else f"{number} {fields[19]}"


def load(path: str = paths.STATE) -> RunRecord | None:
    """Return the record in a file, None when there is no file; a run of this boot that was killed has failed.

    :raises ValueError: it is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            record = RunRecord.from_json(file.read())
    except FileNotFoundError:
        return None
    return _mark_killed(record) if _is_orphaned(record) else record


def _is_orphaned(record: RunRecord) -> bool:
    """Tell whether the record says running although its process is gone."""
    if record.outcome is not Outcome.RUNNING or not record.writer or not process_identity(1):
        return False  # without the first process, /proc hides others' from us
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            if file.read().strip() != record.boot_id:
                return False
    except OSError:
        return False
    return process_identity(record.writer.partition(" ")[0]) != record.writer


def _mark_killed(record: RunRecord) -> RunRecord:
    """Return the record as its process would have left it at its end."""
    for step in record.steps:
        if step.status is Status.STARTED:
            step.status, step.reason = Status.FAILED, "not ended: the run was killed"
    left = [step.name for step in record.steps if step.status in (Status.FAILED, Status.PENDING)]
    record.outcome = Outcome.FAILED
    record.reason = f"the run was killed before its end; not done: {', '.join(left)}"
    return record


def stored_runs(folder: str = paths.RUNS) -> list[str]:
    """Return the paths of stored runs, oldest first (run ids begin with the time)."""
    return sorted(glob.glob(os.path.join(folder, "*.json")))
