# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from cc_sammy.contract.fields import USAGE_FIELDS, Outcome, Status
from cc_sammy.contract.state import AttemptRecord, RunRecord, StepRecord


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
