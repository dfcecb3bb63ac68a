# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.fake_client import FakeRequest, answer, fake_reporter_client, no_answer
from sammy_agent.daemon.reporters.session_activity import ActivityInvalid, SessionActivityReporter, parse


class Plane:
    """Takes reports; `status` of a path's end is what it answers instead of success, None for silence."""

    def __init__(self) -> None:
        self.client, _ = fake_reporter_client(self.respond)
        self.heard: list[tuple[str, str]] = []
        self.status: dict[str, int | None] = {}
        self.on_post: Callable[[str], object] = lambda path: None

    def respond(self, request: FakeRequest) -> Response:
        assert request.document["nodeId"] == "n1" and (request.session, request.method) == ("activity", "POST")
        self.on_post(request.path)
        for part, status in self.status.items():
            if part in request.path:
                return no_answer() if status is None else answer(status)
        self.heard.append((request.path.split("/", 3)[3], request.document.get("activity", "alive")))
        return answer()


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def activity(plane: Plane) -> SessionActivityReporter:
    return SessionActivityReporter(plane.client)


def state(session: str, activity: str, **more: Any) -> dict[str, Any]:
    return {"project": "p1", "session": session, "activity": activity, **more}


def path(session: str) -> str:
    return f"p1/acp-sessions/{session}/activity"


ALIVE = ("p1/node-acp-heartbeat", "alive")


def test_each_session_is_told_in_the_order_of_change_and_the_project_that_the_node_lives(
    activity: SessionActivityReporter, plane: Plane
) -> None:
    activity.update(state("s1", "prompting"))
    activity.update(state("s2", "prompting"))
    activity.update(state("s1", "idle"))
    pause = activity.run_once()
    assert plane.heard == [(path("s2"), "prompting"), (path("s1"), "idle"), ALIVE]
    assert pause is not None and 50 < pause <= 60, "the busy one and the sign of life come again"


def test_a_newer_state_never_arrives_before_an_older_one(activity: SessionActivityReporter, plane: Plane) -> None:
    """While `prompting` is on its way the session becomes idle: idle is sent after it, never lost."""
    activity.update(state("s1", "prompting"))
    plane.on_post = lambda where: activity.update(state("s1", "idle")) if "s1" in where and not plane.heard else None
    activity.run_once()
    assert plane.heard == [(path("s1"), "prompting"), (path("s1"), "idle"), ALIVE]


def test_what_cannot_be_told_now_is_told_later_with_what_is_newest_then(
    activity: SessionActivityReporter, plane: Plane
) -> None:
    plane.status = {"p1": None}
    activity.update(state("s1", "prompting"))
    assert activity.run_once()
    activity.update(state("s1", "error", statusError="it broke"))
    plane.status = {}
    activity.run_once()
    assert plane.heard == [(path("s1"), "error"), ALIVE]


@pytest.mark.parametrize(("status", "again"), [(404, False), (400, False), (403, True), (401, True)])
def test_one_closed_door_keeps_no_other_session_waiting(
    activity: SessionActivityReporter, plane: Plane, status: int, again: bool
) -> None:
    plane.status = {"/s1/": status}
    activity.update(state("s1", "prompting"))
    activity.update(state("s2", "prompting"))
    activity.run_once()
    assert plane.heard == [(path("s2"), "prompting"), ALIVE]
    assert (activity.count() == 2) is again


def test_an_ended_session_is_told_once_more_and_then_forgotten(activity: SessionActivityReporter, plane: Plane) -> None:
    activity.update(state("s1", "idle", ended=True))
    assert activity.run_once() is None, "nothing is due any more"
    assert plane.heard == [(path("s1"), "idle")]
    assert activity.snapshot() == {} and activity.count() == 0


@pytest.mark.parametrize(
    "wrong",
    [{"activity": "asleep"}, {"project": "a/b"}, {"session": None}, {"restartCount": "3"}, {"promptStartedAt": True}],
)
def test_a_wrong_report_names_its_key(wrong: dict[str, Any]) -> None:
    with pytest.raises(ActivityInvalid, match=next(iter(wrong))):
        parse({**state("s1", "idle"), **wrong})


def test_a_long_error_is_cut_to_what_the_wire_keeps() -> None:
    _, body, _ = parse(state("s1", "error", statusError="x" * 5000))
    assert len(body["statusError"]) == 2048
