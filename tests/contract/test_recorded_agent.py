# SPDX-License-Identifier: Apache-2.0
"""The agent's reporters against what a running SAM took and answered (recorded.py): no control plane of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord
from sammy_agent import __version__
from sammy_agent.base.wire import fields
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.fake_client import FakeRequest, answer, fake_reporter_client
from sammy_agent.daemon.credentials.tokens import Token
from sammy_agent.daemon.outbox.channels import ERRORS, MESSAGES, NODE_BOOT_LOG, WORKSPACE_BOOT_LOG, Channel, Lane
from sammy_agent.daemon.outbox.exchange import response_info
from sammy_agent.daemon.outbox.queue import Outbox
from sammy_agent.daemon.outbox.retry_policy import Classification, classify
from sammy_agent.daemon.reporters import boot_log
from sammy_agent.daemon.reporters import errors as error_reports
from sammy_agent.daemon.reporters.heartbeat import HeartbeatReporter, is_heartbeat_answer
from sammy_agent.daemon.reporters.messages import Message, MessageReporter
from sammy_agent.daemon.reporters.ready import is_ready_answer
from sammy_agent.daemon.reporters.session_activity import SessionActivityReporter
from sammy_agent.node.provisioning import ProvisioningState
from tests.contract import recorded

FAILED = RunRecord("20261124T000000-aa", "b", "i", 10.0, "2026-11-24T00:00:00.000+00:00", Outcome.FAILED, "docker")


def kinds(document: dict[str, Any]) -> dict[str, type]:
    return {name: float if isinstance(value, (int, float)) else type(value) for name, value in document.items()}


@pytest.fixture
def outbox(tmp_path: Path) -> Any:
    made = Outbox(str(tmp_path / "outbox.db"))
    yield made
    made.close()


def sent(outbox: Outbox, channel: Channel, owner: str) -> Any:
    """Return the body of the request that would carry what waits."""
    return json.loads(channel.encode(outbox.head(Lane(channel.name, owner), 100)))


def test_a_heartbeat_has_the_recorded_fields_and_only_our_own_beside_them() -> None:
    plane, fake = fake_reporter_client(lambda request: answer(200, recorded.HEARTBEAT_ANSWER))
    heartbeat = HeartbeatReporter(plane, lambda: ProvisioningState(FAILED), 60, 8443)
    heartbeat.run_once()
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", f"{recorded.N}/heartbeat")
    assert request.content_type == "application/json", "without it SAM loses the metrics (wire)"
    body = request.document
    assert kinds(recorded.HEARTBEAT_BODY).items() <= kinds(body).items()
    assert body["agentVersion"] == __version__ and body["nodeId"] == "n1"
    assert None not in body["metrics"].values(), "a null metric makes the whole heartbeat 400 (wire)"
    assert set(body["metrics"]) <= set(recorded.HEARTBEAT_METRICS)
    ours = {*fields.PROVISIONING, "durationMs", "steps", "agentPort"}
    assert set(body) - set(recorded.HEARTBEAT_BODY) <= ours


@pytest.mark.parametrize("name", ["heartbeat", "ready"])
def test_recorded_answers_are_known_and_a_login_pages_are_not(name: str) -> None:
    is_answer = {"heartbeat": is_heartbeat_answer, "ready": is_ready_answer}[name]
    good = {"heartbeat": recorded.HEARTBEAT_ANSWER, "ready": recorded.READY_ANSWER}[name]
    assert is_answer(answer(200, good)) and is_answer(answer(200, {**good, "refreshedToken": "x", "new": 1}))
    assert not is_answer(answer(200, {})) and not is_answer(Response(200, b"<html>"))


def test_messages_are_sent_as_they_were_recorded(outbox: Outbox) -> None:
    told = [recorded.MESSAGE, recorded.TOOL_MESSAGE, recorded.PROMPT_MESSAGE]
    MessageReporter(outbox).send("w1", *map(Message.from_wire, told))
    (body,) = sent(outbox, MESSAGES, "w1").values()
    numbers = [one["sequence"] for one in body]
    assert numbers == sorted(set(numbers)) and numbers[-1] < 2**53, "it grows, and JavaScript can hold it"
    assert [{**one, "sequence": number} for number, one in enumerate(body, 1)] == told


def test_an_error_is_sent_with_recorded_fields(outbox: Outbox) -> None:
    outbox.add(Lane(ERRORS.name, "n1"), [error_reports.row(recorded.ERROR_ENTRY)])
    assert sent(outbox, ERRORS, "n1") == {"errors": [recorded.ERROR_ENTRY]}
    ours = error_reports.incident(FAILED)
    assert kinds(ours).items() <= kinds(recorded.ERROR_ENTRY).items()


def test_a_workspaces_boot_log_entry_is_sent_as_recorded(outbox: Outbox) -> None:
    boot_log.add_entry(outbox, "w1", {"id": "e1", **recorded.BOOT_LOG_ENTRY})
    assert sent(outbox, WORKSPACE_BOOT_LOG, "w1") == recorded.BOOT_LOG_ENTRY
    boot_log.add_entry(outbox, "w2", {"id": "e2", **recorded.BOOT_LOG_ENTRY, "message": ""})
    assert sent(outbox, WORKSPACE_BOOT_LOG, "w2")["message"] == "", "SAM requires it (sessions 1.3)"


def test_a_sessions_activity_is_sent_as_recorded() -> None:
    plane, fake = fake_reporter_client(lambda request: Response(204))
    reporter = SessionActivityReporter(plane)
    reporter.update({"project": "p1", "session": "a1", **recorded.ACTIVITY_BODY})
    reporter.run_once()
    requests = {request.path: request.document for request in fake.requests}
    assert requests == {
        f"{recorded.P}/acp-sessions/a1/activity": recorded.ACTIVITY_BODY,
        f"{recorded.P}/node-acp-heartbeat": {"nodeId": "n1"},
    }


BATCH, ENTRY = MESSAGES, WORKSPACE_BOOT_LOG
EXPIRED = Token("x", issued=0.0, expires=1.0)
REFUSED = {"error": "BAD_REQUEST", "message": "Workspace is stopped, not active"}
INTERNAL = {"error": "INTERNAL_ERROR", "message": "Internal server error", "requestId": "r"}


@pytest.mark.parametrize(
    ("channel", "status", "document", "expected"),
    [
        (BATCH, 200, recorded.PERSISTED, Classification.DELIVERED),
        (BATCH, 200, recorded.DUPLICATES, Classification.DELIVERED),
        (ENTRY, 200, {"success": True}, Classification.DELIVERED),
        (ERRORS, 204, None, Classification.DELIVERED),
        (BATCH, 400, REFUSED, Classification.REFUSED),
        (BATCH, 401, {"error": "UNAUTHORIZED", "message": "Empty bearer token"}, Classification.HOLD),
        (BATCH, 403, {"error": "FORBIDDEN", "message": "Insufficient token scope"}, Classification.HOLD),
        (BATCH, 404, {"error": "NOT_FOUND", "message": "Workspace not found"}, Classification.HOLD),
        (BATCH, 409, recorded.SESSION_FULL_ANSWER, Classification.FULL),
        (BATCH, 409, {**recorded.SESSION_FULL_ANSWER, "remainingCapacity": 3}, Classification.REFUSED),
        (BATCH, 409, {"error": "CONFLICT", "message": "no linked chat session yet"}, Classification.RETRY),
        (BATCH, 500, INTERNAL, Classification.RETRY),
        (BATCH, 503, {"error": "SERVICE_UNAVAILABLE", "message": "x"}, Classification.RETRY),
        # SAM's 401 for a path that it does not have (protocol 1.1 [95])
        (NODE_BOOT_LOG, 401, {"error": "UNAUTHORIZED", "message": "Authentication required"},
         Classification.UNSUPPORTED),
    ],
)  # fmt: skip
def test_the_outbox_reads_recorded_answers(
    channel: Channel, status: int, document: dict[str, Any] | None, expected: Classification
) -> None:
    response = Response(204) if document is None else answer(status, document)
    info = response_info(response, channel, Token("x"), 100.0)
    assert classify(info, optional=channel.optional) is expected


def test_a_500_with_a_token_that_is_over_is_the_token(outbox: Outbox) -> None:
    """protocol 1.1 [21-24]: SAM answers a bad token with 500; retrying an expired one for ever says nothing."""
    info = response_info(answer(500, INTERNAL), BATCH, EXPIRED, 100.0)
    assert classify(info) is Classification.HOLD


def test_a_debug_package_goes_the_recorded_way(tmp_path: Path) -> None:
    from sammy_agent.base.runtime.paths import Paths
    from sammy_agent.daemon.reporters.debug_packages import DebugPackagePusher, Incident

    def respond(request: FakeRequest) -> Response:
        return answer(201, {"artifactId": "x", "status": "pending"}) if "incidents" in request.path else Response(204)

    plane, fake = fake_reporter_client(respond)
    paths = Paths(str(tmp_path))
    pusher = DebugPackagePusher(plane, lambda: ProvisioningState(FAILED), paths, 600.0, lambda *a, **k: None)
    case = Incident(dict(recorded.ERROR_ENTRY), 0.0, True)
    Path(paths.packages).mkdir(parents=True)
    Path(pusher._path(case)).write_bytes(recorded.CONTENT)
    pusher._send(case)
    report, declared, content = fake.requests
    assert (report.path, report.document) == (f"{recorded.N}/errors", {"errors": [recorded.ERROR_ENTRY]})
    assert declared.path == recorded.ARTIFACTS and kinds(declared.document) == kinds(recorded.ARTIFACT_BODY)
    same = {name: value for name, value in recorded.ARTIFACT_BODY.items() if not isinstance(value, dict)}
    assert same.items() <= declared.document.items()
    assert (content.method, content.path, content.body) == ("PUT", recorded.ARTIFACT_CONTENT, recorded.CONTENT)
    assert content.headers["X-Content-SHA256"] == recorded.CONTENT_SHA256
