# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_sammy.contract.incident_id import incident_id
from cc_sammy.contract.run_record import Outcome, RunRecord, Status, StepRecord
from sammy_agent.base.errors import Problem
from sammy_agent.base.runtime import state_file
from sammy_agent.base.wire import fields
from sammy_agent.control_plane import node_schema
from sammy_agent.daemon.client.fake_client import answer, fake_reporter_client
from sammy_agent.daemon.reporters.errors import incident
from sammy_agent.daemon.reporters.heartbeat import HeartbeatReporter
from sammy_agent.daemon.reporters.ready import Acknowledgement
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.node import heartbeat_metrics
from sammy_agent.node.provisioning import ProvisioningState


def record(outcome: Outcome = Outcome.RUNNING, **more: object) -> RunRecord:
    made = RunRecord("20261124T000000-aa", "b", "i", 10.0, "2026-11-24T00:00:00.000+00:00", outcome)
    made.steps = [
        StepRecord("packages", Status.COMPLETED, False, 10.0, 1500.0),
        StepRecord("docker", Status.FAILED, True, 11.5, 250.0, "no dockerd"),
        StepRecord("tls-permissions", Status.SKIPPED, True, reason="no key"),
        StepRecord("firewall", Status.STARTED, True, 12.0),
        StepRecord("image-prepull"),
    ]
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("outcome", "phase", "ready"),
    [
        (Outcome.RUNNING, "provisioning", False),
        (Outcome.FAILED, "ended", False),
        (Outcome.READY, "ended", True),
        (Outcome.DEGRADED, "ended", True),
    ],
)
def test_ready_may_be_said_for_ready_and_degraded_only(outcome: Outcome, phase: str, ready: bool) -> None:
    level = ProvisioningState(record(outcome))
    assert (level.phase, level.is_reportable_as_ready) == (phase, ready)


def test_without_a_record_nothing_is_ready() -> None:
    assert not ProvisioningState().is_reportable_as_ready and ProvisioningState().summary() == {"phase": "waiting"}
    assert not ProvisioningState(problem="damaged").is_reportable_as_ready


def test_a_heartbeats_extra_fields_pass_the_wires_rules() -> None:
    level = ProvisioningState(record(Outcome.FAILED, reason="r" * 5000, duration_ms=12.5))
    body = json.loads(json.dumps({**level.summary(), "steps": level.steps(), "metrics": heartbeat_metrics.collect()}))
    values = node_schema.parse_heartbeat(body)
    assert len(values["provisioning"]["reason"]) == 500
    assert values["provisioning"]["steps"][1] == {
        "name": "docker",
        "status": "failed",
        "durationMs": 250.0,
        "reason": "no dockerd",
    }
    assert set(values["metrics"]) == set(fields.METRICS)
    assert all(0 <= values["metrics"][name] <= 100 for name in ("memoryPercent", "diskPercent"))


def test_a_beats_reason_says_first_what_is_wrong_besides_the_provisioning() -> None:
    plane, fake = fake_reporter_client(lambda request: answer(200, {"status": "running", "healthStatus": "healthy"}))
    levels = [ProvisioningState(record(Outcome.READY)), ProvisioningState(record(Outcome.DEGRADED, reason="r" * 5000))]
    problems: list[str] = []
    beats = HeartbeatReporter(plane, lambda: levels[0], 60, get_problem=lambda: "".join(problems))
    beats.run_once()
    assert not fake.requests[0].document.get("reason")
    problems.append("firewall rolled back")
    beats.run_once()
    levels.pop(0)
    beats.run_once()
    sent = [request.document for request in fake.requests]
    assert sent[1]["reason"] == "firewall rolled back"
    assert sent[2]["reason"].startswith("firewall rolled back; rrr") and len(sent[2]["reason"]) == 500


def test_an_incident_is_the_same_whenever_it_is_made_and_passes_the_wires_rules() -> None:
    failed = record(Outcome.FAILED, reason="docker: " + "x" * 50_000)
    assert incident(failed) == incident(failed)
    (kept,) = node_schema.parse_errors(json.dumps({"errors": [incident(failed)]}).encode())
    assert kept["incidentId"] == incident(failed)["incidentId"]
    assert kept["incidentId"] == incident_id(failed.run_id, "failed"), "cc_sammy's own report of it is the same one"


def test_ready_is_remembered_by_node_and_control_plane(tmp_path: Path) -> None:
    memory = Acknowledgement("n1", "https://x", "2026-11-24T00:00:00+00:00", True)
    assert Acknowledgement.from_document(json.loads(json.dumps(memory.to_document()))) == memory
    path = tmp_path / "ready.json"
    assert state_file.load(str(path), Acknowledgement) is None
    for damaged in ("", "{}", "[]", json.dumps(memory.to_document())[:-10]):
        path.write_text(damaged)
        assert isinstance(state_file.load(str(path), Acknowledgement), Problem)


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    return EventStore(str(tmp_path / "own" / "events.db"))


def test_the_store_takes_the_same_record_many_times(store: EventStore) -> None:
    for _ in range(3):
        assert store.add_run(record(Outcome.FAILED))
    events = store.events()[::-1]
    assert [(event["step"], event["status"], event["level"]) for event in events] == [
        ("packages", "started", "info"),
        ("packages", "completed", "info"),
        ("docker", "started", "info"),
        ("docker", "failed", "error"),
        ("tls-permissions", "skipped", "info"),
        ("firewall", "started", "info"),
    ]
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert events[3]["created_at"] == 1_795_478_401_750_000, "the step's own end, by the run's clock"
    assert events[3]["boottime_us"] == 11_750_000
    assert events[3]["duration_us"] == 250_000 and events[3]["message"] == "docker failed: no dockerd"


def test_a_second_attempt_is_another_event(store: EventStore) -> None:
    store.add_run(record())
    again = record()
    again.steps[1].attempt, again.steps[1].status = 2, Status.COMPLETED
    store.add_run(again)
    assert ("docker", 2, "completed") in [
        (event["step"], event["attempt"], event["status"]) for event in store.events()
    ]


def test_an_ended_run_is_not_overwritten_by_an_older_record_of_it(store: EventStore) -> None:
    store.add_run(record(Outcome.FAILED))
    assert not store.add_run(record(Outcome.RUNNING))
    (failed,) = store.unreported_failures()
    assert failed == record(Outcome.FAILED)
    store.mark_reported(failed.run_id)
    store.add_run(record(Outcome.FAILED))
    assert store.unreported_failures() == [], "feeding it again does not report it again"
    assert Path(store.path).stat().st_mode & 0o777 == 0o600
