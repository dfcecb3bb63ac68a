# SPDX-License-Identifier: Apache-2.0
"""Whose debug package is wanted: each incident once, bounded, and read again whatever became of the file."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from sammy_agent.control_plane.nodes import ULID
from sammy_agent.reporters.packages import MOST_DONE, MOST_WAITING, Memory, lost_contact


def entry(number: int) -> dict[str, str]:
    return {"incidentId": f"I{number}", "message": "m", "source": "s"}


def test_each_incident_once_and_no_more_than_its_bounds() -> None:
    memory = Memory()
    assert [memory.wants(entry(1), 0.0), memory.wants(entry(1), 1.0)] == [True, False]
    memory.end(memory.waiting[0])
    assert not memory.wants(entry(1), 2.0), "it is acknowledged"
    for number in range(2, 200):
        assert memory.wants(entry(number), 3.0)
    assert [case.incident for case in memory.waiting] == [f"I{number}" for number in range(200 - MOST_WAITING, 200)]
    for number in range(200, 400):
        memory.wants(entry(number), 4.0)
        memory.end(memory.waiting[-1])
    assert len(memory.done) == MOST_DONE


def test_it_is_read_as_it_was_written() -> None:
    memory = Memory()
    memory.wants(entry(1), 5.0)
    memory.waiting[0].packed = True
    assert Memory.from_text(json.dumps(asdict(memory))) == memory


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"waiting": 1}', '{"waiting": [{}], "done": []}', "null"])
def test_what_is_damaged_begins_anew(text: str | None) -> None:
    assert Memory.from_text(text) == Memory()


def test_an_outage_is_one_incident_whenever_it_is_told() -> None:
    told = [lost_contact(700.0, "again", 1_800_000_000.0 + late) for late in (0.0, 0.2)]
    assert told[0]["incidentId"] == told[1]["incidentId"] and ULID.fullmatch(told[0]["incidentId"])
    assert "11.7 minutes" in told[0]["message"]
    assert lost_contact(700.0, "another", 1_800_009_000.0)["incidentId"] != told[0]["incidentId"]
