# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cc_sammy.common.run_records import load, process_identity
from cc_sammy.contract.journal_fields import USAGE_FIELDS
from cc_sammy.contract.run_record import AttemptRecord, Outcome, RunRecord, Status, StepRecord


def test_a_record_survives_its_file_and_a_later_versions_keys() -> None:
    record = RunRecord("r", "b", "i", 1.5, "w", Outcome.DEGRADED, "why", 12.5)
    record.steps = [StepRecord("docker", Status.FAILED, False, 2.0, 10.25, "no dockerd")]
    document = json.loads(record.to_json())
    document["new_in_a_later_version"] = document["steps"][0]["also_new"] = 1
    assert RunRecord.from_json(json.dumps(document)) == record


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"run_id": 1'], ids=repr)
def test_a_damaged_file_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RunRecord.from_json(text)


def test_a_record_of_an_older_version_is_read_with_its_usage_unknown() -> None:
    record = RunRecord("r", "b", "i", 1.5, "w", steps=[StepRecord("docker", cpu_ms=1.0, read_bytes=512)])
    document = json.loads(record.to_json())
    for key in USAGE_FIELDS.values():
        del document["steps"][0][key]
    assert RunRecord.from_json(json.dumps(document)).steps == [StepRecord("docker")]


def test_attempts_survive_the_file_and_a_later_versions_keys() -> None:
    step = StepRecord("docker", first=AttemptRecord(1.0, 2.0, "no route"), last=AttemptRecord(4.0, 5.0))
    document = json.loads(RunRecord("r", "b", "i", 1.5, "w", steps=[step]).to_json())
    document["steps"][0]["first"]["also_new"] = 1
    assert RunRecord.from_json(json.dumps(document)).steps == [step]


def test_a_run_whose_process_is_gone_has_failed_and_says_what_it_did_not_do(tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    steps = [StepRecord("firewall", Status.COMPLETED), StepRecord("packages", Status.STARTED), StepRecord("docker")]
    record = RunRecord("r", boot, "i", 1.5, "w", steps=steps)
    path = tmp_path / "state.json"

    def loaded(writer: str, boot_id: str = boot) -> RunRecord | None:
        record.writer, record.boot_id = writer, boot_id
        path.write_text(record.to_json())
        return load(str(path))

    with subprocess.Popen(["sleep", "1000"]) as other:
        writer = process_identity(other.pid)
        assert loaded(writer) == record
        other.kill()
    found = loaded(writer)
    assert found is not None and found.outcome is Outcome.FAILED
    assert found.reason == "the run was killed before its end; not done: packages, docker"
    assert found.step("packages").reason == "not ended: the run was killed"
    # Its number given to another process; a power cut; a record from before there was a writer.
    reused = loaded(f"{os.getpid()} 1")
    assert reused is not None and reused.outcome is Outcome.FAILED
    assert loaded(writer, "another boot") == record
    assert loaded("") == record
