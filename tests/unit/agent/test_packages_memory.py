# SPDX-License-Identifier: Apache-2.0
"""Whose debug package is wanted: each incident once, bounded, and read again whatever became of the file."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import pytest

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import discard_event
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire.ids import is_ulid
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.reporters.debug_packages import (
    MAX_DONE,
    MAX_WAITING,
    DebugPackagePusher,
    Incident,
    PushState,
    lost_contact,
)
from sammy_agent.diagnostics.event_store.recent import RecentEvent
from sammy_agent.node.provisioning import ProvisioningState

MEMORY = "var/lib/sammy/agent/packages/memory.json"


def entry(number: int) -> dict[str, str]:
    return {"incidentId": f"I{number}", "message": "m", "source": "s"}


def test_each_incident_once_and_no_more_than_its_bounds() -> None:
    memory = PushState()
    assert [memory.enqueue(entry(1), 0.0), memory.enqueue(entry(1), 1.0)] == [True, False]
    memory.end(memory.waiting[0])
    assert not memory.enqueue(entry(1), 2.0), "it is acknowledged"
    for number in range(2, 200):
        assert memory.enqueue(entry(number), 3.0)
    assert [case.incident for case in memory.waiting] == [f"I{number}" for number in range(200 - MAX_WAITING, 200)]
    for number in range(200, 400):
        memory.enqueue(entry(number), 4.0)
        memory.end(memory.waiting[-1])
    assert len(memory.done) == MAX_DONE


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    memory = PushState()
    memory.enqueue(entry(1), 5.0)
    memory.waiting[0].packed = True
    Stubbed(tmp_path)._save(memory)
    assert Stubbed(tmp_path)._remembered() == memory
    assert stat.S_IMODE(os.stat(tmp_path / MEMORY).st_mode) == 0o600


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"waiting": 1}', '{"waiting": [{}], "done": []}', "null"])
def test_what_is_damaged_begins_anew(tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture) -> None:
    if text is not None:
        (tmp_path / MEMORY).parent.mkdir(parents=True)
        (tmp_path / MEMORY).write_text(text)
    assert Stubbed(tmp_path)._remembered() == PushState()
    assert ("memory.json is damaged" in caplog.text) == (text is not None)


def test_an_outage_is_one_incident_whenever_it_is_told() -> None:
    told = [lost_contact(700.0, "again", 1_800_000_000.0 + late) for late in (0.0, 0.2)]
    assert told[0]["incidentId"] == told[1]["incidentId"] and is_ulid(told[0]["incidentId"])
    assert "11.7 minutes" in told[0]["message"]
    assert lost_contact(700.0, "another", 1_800_009_000.0)["incidentId"] != told[0]["incidentId"]


class Stubbed(DebugPackagePusher):
    """Its decisions, without the program and the wire; `answers` are the statuses that sending meets, 0 for good."""

    def __init__(self, root: Path, *answers: int) -> None:
        super().__init__(Mock(), ProvisioningState, Paths(str(root)), 60.0, discard_event)
        self.answers = list(answers)
        self.did: list[str] = []

    def _make(self, case: Incident) -> bool:
        self.did.append(f"make {case.incident}")
        return True

    def _send(self, case: Incident) -> None:
        self.did.append(f"send {case.incident}")
        status = self.answers.pop(0) if self.answers else 0
        if status:
            raise RequestFailed(Problem(Code.SERVER_ERROR, f"answered {status}"), status)


def old(root: Path, *numbers: int) -> None:
    """Leave a memory of incidents whose logs are settled."""
    memory = PushState([Incident(entry(number), 1e9) for number in numbers])
    for case in memory.waiting:
        case.since = 4e9  # after any clock's now, so neither too old nor still to be made
        case.packed = True
    path = root / MEMORY
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(memory)))


def test_one_a_turn_and_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    old(tmp_path, 1, 2)
    packages = Stubbed(tmp_path, 500, 401, 0, 400)
    pauses = [packages.run_once() for _ in range(5)]
    assert packages.did == ["send I1", "send I1", "send I1", "send I2"]
    assert [pause is None or pause == 0.0 for pause in pauses] == [False, False, True, True, True]
    assert pauses[-1] is None and packages.snapshot() == {"waiting": 0, "sent": 2, "problem": None}
    assert Stubbed(tmp_path).run_once() is None, "it is remembered on disk"


def test_only_an_outage_that_was_long_is_an_incident(tmp_path: Path) -> None:
    packages = Stubbed(tmp_path)
    packages.on_event(RecentEvent(kinds.CONTACT_REGAINED, "back", 59.0))
    packages.on_event(RecentEvent(kinds.CONTACT_LOST, "lost", 600.0))
    assert packages.run_once() is None
    packages.on_event(RecentEvent(kinds.CONTACT_REGAINED, "back", 61.0))
    pause = packages.run_once()
    assert pause is not None and 0 < pause <= 5.0, "the last lines are to reach their logs first"
    assert packages.did == [] and packages.snapshot()["waiting"] == 1
