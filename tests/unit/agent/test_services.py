# SPDX-License-Identifier: Apache-2.0
"""The composition root: no side effects before the start, one failure costs one task, who wakes whom, what closes."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord
from sammy_agent.base.errors import AgentError
from sammy_agent.base.events import kinds
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.fake_process import FakePrograms
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.fake_client import FakeControlPlaneClient, FakeRequest, answer, no_answer
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher, StateChange
from sammy_agent.daemon.recording import Recording
from sammy_agent.daemon.reporters.heartbeat import NodeStatus
from sammy_agent.daemon.service_group import Service
from sammy_agent.daemon.services import Services, make_transport
from sammy_agent.node.config import AgentConfig
from sammy_agent.node.provisioning import ProvisioningState
from sammy_agent.transport import TransportError

BOOT = "b-now"
NAMES = (
    "outbox-queue",
    "transport",
    "network-monitor",
    "credentials",
    "heartbeat",
    "ready",
    "errors",
    "boot-log",
    "activity",
    "certificate",
    "packages",
    "guard",
    "outbox-1",
    "outbox-2",
    "outbox-3",
    "management-server",
)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


class Broken:
    """A service in the place of another: it cannot start as long as `error` is set, and keeps what was done."""

    def __init__(self, service: Service, done: list[str]) -> None:
        self.service, self.done, self.name = service, done, service.name
        self.error: Exception | None = None

    def start(self) -> None:
        if self.error is not None:
            raise self.error
        self.done.append(f"start {self.name}")
        self.service.start()

    def stop(self) -> None:
        self.done.append(f"stop {self.name}")
        self.service.stop()


class Lab:
    """Services of a node whose control plane is a fake client; nothing is answered unless `heartbeats` is set."""

    def __init__(self, root: Path, *, debug_push: bool = True) -> None:
        self.paths = Paths(str(root))
        token = root / "token"
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("token-of-n1\n")
        Path(self.paths.tls_key).parent.mkdir(parents=True)
        for path in (self.paths.tls_key, self.paths.tls_certificate):  # somebody else's: no helper makes one
            Path(path).write_text("none")
        self.heartbeats = False
        self.requests: list[FakeRequest] = []
        self.config = AgentConfig("n1", "https://control-plane.test", str(token), None, 0, debug_push=debug_push)
        self.clock, self.programs = FakeClock(auto_advance=False), FakePrograms()
        self.recording = Recording(self.paths, BOOT)
        self.watcher = ProvisioningWatcher(self.paths, self.recording.store, BOOT)
        self.transport = make_transport(self.config)
        self.services = Services(
            self.config, self.paths, self.watcher, self.recording, self.transport,
            make_client=lambda status: FakeControlPlaneClient(self.respond, status=status),
            run=self.programs, clock=self.clock,
        )  # fmt: skip
        self.done: list[str] = []

    def respond(self, request: FakeRequest) -> Response:
        self.requests.append(request)
        if not self.heartbeats:
            return no_answer()
        if request.path.endswith("/heartbeat"):
            return answer(200, {"status": "running", "healthStatus": "healthy"})
        return answer(200, {"status": "running"})

    def broken(self, name: str) -> Broken:
        """Return the place of a service, which now can be broken; all are watched from then on."""
        entries = self.services._group._entries
        for entry in entries:
            if not isinstance(entry.service, Broken):
                entry.service = Broken(entry.service, self.done)
        found: Any = next(entry.service for entry in entries if entry.service.name == name)
        return found  # type: ignore[no-any-return]

    def worker(self, name: str) -> Worker:
        found: Any = next(one for one in self.services._in_order_of_start() if one.name == name)
        return found  # type: ignore[no-any-return]

    def sent(self, path: str) -> list[FakeRequest]:
        return [request for request in self.requests if request.path.endswith(path)]

    def woken(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return the list of those that are woken from now on."""
        woken: list[str] = []
        monkeypatch.setattr(Worker, "wake", lambda worker: woken.append(worker.name))
        return woken

    def set_state(self, outcome: Outcome) -> None:
        record = RunRecord("20260101T000000-a", BOOT, "i", 1.0, "2026-01-01T00:00:00+00:00", outcome)
        Path(self.paths.state).parent.mkdir(parents=True, exist_ok=True)
        Path(self.paths.state).write_text(record.to_json())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "root")
    yield made
    made.services.close()
    wait_for(lambda: not [one for one in threads() if one.startswith("sammy-network")], "the threads to end")


def threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate())


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def files_below(folder: str) -> set[str]:
    return {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names}


def test_building_starts_no_thread_opens_nothing_and_writes_nothing(tmp_path: Path) -> None:
    Lab(tmp_path / "first").services.close()  # what is opened once per process
    before = threads(), descriptors()
    root = tmp_path / "second"
    lab = Lab(root)
    assert (threads(), descriptors()) == before
    assert files_below(str(root)) == {lab.config.token_file, lab.paths.tls_key, lab.paths.tls_certificate}
    assert lab.requests == [] and lab.services.workers() == []
    assert "0 of 16 started" in repr(lab.services)
    lab.services.close()
    lab.services.close()
    assert lab.services.start() is None and (threads(), descriptors()) == before


def test_a_ca_file_that_is_not_usable_fails_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot be used"):
        make_transport(AgentConfig("n1", "https://x", None, str(tmp_path / "none.crt"), 8443, True))


def test_the_order_of_start_and_stop(lab: Lab) -> None:
    lab.broken("heartbeat")
    assert lab.services.start() is None
    assert lab.done == [f"start {name}" for name in NAMES]
    with pytest.raises(RuntimeError, match="started before"):
        lab.services.start()
    lab.services.close()
    lab.services.close()
    assert lab.done[len(NAMES) :] == [f"stop {name}" for name in reversed(NAMES)]


@pytest.mark.parametrize("name", NAMES)
def test_one_that_cannot_start_is_seen_in_the_status_and_the_others_work(lab: Lab, name: str) -> None:
    place = lab.broken(name)
    place.error = OSError(errno.EMFILE, "Too many open files")
    delay = lab.services.start()
    assert delay is not None and delay > 0
    assert lab.done == [f"start {one}" for one in NAMES if one != name]
    (problem,) = lab.services.snapshot()["services"].items()
    assert problem[0] == name and problem[1]["code"] == "service-not-started"
    assert "Too many open files" in problem[1]["text"] and problem[1]["next_step"]
    if name != "heartbeat":
        wait_for(lambda: lab.sent("/heartbeat"), "a heartbeat")
    place.error = None
    lab.clock.advance(delay)
    assert lab.services.retry() is None
    assert lab.done[-1] == f"start {name}" and lab.services.snapshot()["services"] == {}


@pytest.mark.parametrize("damage", ["unreadable", "no JSON"])
def test_a_ready_json_that_cannot_be_read_costs_nothing(tmp_path: Path, damage: str) -> None:
    """It once kept the agent from all contact, and every attempt left two threads and four descriptors behind."""
    lab = Lab(tmp_path / "root")
    path = Path(lab.paths.ready)
    path.parent.mkdir(parents=True)
    if damage == "unreadable":
        path.mkdir()  # for root there is no mode that forbids to read
    else:
        path.write_text('{"node_id": "n1"')
    lab.set_state(Outcome.READY)
    lab.heartbeats = True
    try:
        assert lab.services.start() is None
        wait_for(lambda: lab.sent("/ready"), "ready to be posted again")
        assert lab.sent("/heartbeat")
        assert lab.services.snapshot()["services"] == {}
        if damage == "unreadable":
            wait_for(lambda: (lab.services.snapshot()["ready"]["cause"] or {}).get("code") == "ready-unsaved", "why")
        assert lab.services.snapshot()["ready"]["state"] == "acknowledged"
    finally:
        lab.services.close()


def test_failing_starts_leave_no_thread_and_no_descriptor_behind(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe2", no_descriptor)  # the network monitor's
        patched.setattr(os, "eventfd", no_descriptor)  # the management server's
        lab.services.start()
        assert set(lab.services.snapshot()["services"]) == {"network-monitor", "management-server"}
        wait_for(lambda: lab.sent("/heartbeat"), "a heartbeat")
        before = threads(), descriptors()
        for _ in range(10):
            lab.clock.advance(120.0)
            assert lab.services.retry()
        assert (threads(), descriptors()) == before
    with monkeypatch.context() as patched:
        real = threading.Thread.start

        def no_thread(thread: threading.Thread) -> None:
            if thread.name in ("sammy-network", "management-server"):
                raise RuntimeError("can't start new thread")
            real(thread)

        patched.setattr(threading.Thread, "start", no_thread)
        lab.clock.advance(120.0)
        lab.services.retry()
        bell = 1  # the management server's is kept for the next attempt
        for _ in range(10):
            lab.clock.advance(120.0)
            assert lab.services.retry()
        assert threads() == before[0] and descriptors() == before[1] + bell
    lab.clock.advance(120.0)
    assert lab.services.retry() is None and lab.services.snapshot()["services"] == {}


def test_a_connection_that_is_back_lets_no_reporter_wait(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = lab.woken(monkeypatch)
    hurried: list[bool] = []
    monkeypatch.setattr(lab.services._outbox._dispatcher, "retry_now", lambda: hurried.append(True))
    lab.services._heartbeat.connected.emit(None)
    assert sorted(woken) == ["activity", "certificate", "errors", "packages", "ready"] and hurried == [True]


@pytest.mark.parametrize("ends", [True, False])
def test_a_change_of_the_state_wakes_who_reports_it(lab: Lab, monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    woken = lab.woken(monkeypatch)
    before = RunRecord("r", BOOT, "i", 1.0, "2026-01-01T00:00:00+00:00", Outcome.RUNNING)
    now = RunRecord("r", BOOT, "i", 1.0, "2026-01-01T00:00:00+00:00", Outcome.READY if ends else Outcome.RUNNING)
    lab.watcher.changed.emit(StateChange(ProvisioningState(before), ProvisioningState(now)))
    assert sorted(woken) == sorted(["boot-log", "errors", "packages", "ready", *(["heartbeat"] if ends else [])])


def test_incidents_and_stored_runs_wake_the_errors_reporter(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = lab.woken(monkeypatch)
    lab.watcher.stored.emit(None)
    lab.recording.recorder.incident_recorded.emit(None)
    assert woken == ["errors", "errors"]
    lab.services._certificate.installed.emit(None)
    assert woken[2:] == ["management-server"]


def test_a_long_outage_is_an_incident_where_packages_are_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for debug_push in (True, False):
        lab = Lab(tmp_path / str(debug_push), debug_push=debug_push)
        with monkeypatch.context() as patched:
            woken = lab.woken(patched)
            lab.services.recent_events.record(kinds.CONTACT_REGAINED, "back", seconds=1e6)
        assert ("packages" in woken) is debug_push
        assert (lab.services.snapshot()["packages"] is not None) is debug_push
        lab.services.close()


def test_a_node_that_is_called_creating_posts_ready_again(lab: Lab) -> None:
    lab.heartbeats = True
    lab.set_state(Outcome.READY)
    lab.services.start()
    wait_for(lambda: len(lab.sent("/ready")) == 1, "ready")
    wait_for(lambda: lab.services.snapshot()["ready"]["state"] == "acknowledged", "the acknowledgement")
    lab.services._heartbeat.status_received.emit(NodeStatus("creating", time.monotonic() + 1))
    wait_for(lambda: len(lab.sent("/ready")) == 2, "ready again")


def test_what_the_firewall_notes_after_ready_is_logged_and_in_the_event(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    note = "the rules could not be tried beforehand ([Errno 97] Address family not supported by protocol)"
    lab.programs.answer("sammy", "firewall", "apply", stdout=f"applied and read back\nnote: {note}\n")
    lab.heartbeats = True
    lab.set_state(Outcome.READY)
    lab.services.start()
    wait_for(lambda: lab.services.snapshot()["ready"]["firewall_applied"], "the apply")
    (event,) = [one for one in lab.services.recent_events.snapshot()["changes"] if one["kind"] == "firewall.applied"]
    assert event["detail"] == {"notes": [note]} and note in event["reason"]
    assert f"firewall: {note}" in [record.getMessage() for record in caplog.records]


def test_news_of_the_network(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(lab.transport, "remount", reasons.append)
    woken = lab.woken(monkeypatch)
    lab.services._on_network_event("a route changed")
    lab.services._on_network_event("the firewall changed")
    assert woken == ["recorder", "heartbeat", "recorder", "guard", "heartbeat"]
    lab.services.connection.success("heartbeat")
    woken.clear()
    lab.services._on_network_event("a link changed")
    assert woken == ["recorder"], "a good connection is not probed"
    lab.services.network_changed("docker-restart")
    assert woken == ["recorder", "heartbeat"]
    assert reasons == ["a route changed", "the firewall changed", "a link changed", "docker-restart"]


def test_a_remount_is_an_event(lab: Lab) -> None:
    lab.transport.remount("a route changed")
    (change,) = lab.services.recent_events.snapshot()["changes"]
    assert (change["kind"], change["reason"]) == ("transport.remounted", "a route changed")
    assert change["detail"] == {"closed": 0, "aborted": 0}


def test_another_token_is_used_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.services.snapshot()["token"]["state"] == "missing", "nothing is read before the start"
    lab.services.start()
    assert lab.services.snapshot()["token"]["state"] == "ok"
    woken = lab.woken(monkeypatch)
    lab.services.token_changed()
    assert set(NAMES[4:]) <= set(woken)
    assert [one["kind"] for one in lab.services.recent_events.snapshot()["changes"]][-1] == "token.set"


def test_what_a_workspace_hands_in_lies_in_the_outbox(lab: Lab) -> None:
    message = {
        "messageId": "m1", "sessionId": "s", "role": "user", "content": "x", "timestamp": "2026-01-01T00:00:00Z"
    }  # fmt: skip
    lab.services.add_messages({"workspace": "w1", "messages": [message]})
    entry = {"id": "1", "step": "s", "status": "started", "timestamp": "2026-01-01T00:00:00Z"}
    lab.services.add_boot_log_entry({"workspace": "w1", "entry": entry})
    lab.services.update_session({"project": "p", "session": "s", "activity": "idle"})
    status = lab.services.snapshot()
    assert status["outbox"]["rows"] == 2 and status["sessions"] == {"p/s": {"activity": "idle", "told": False}}
    assert lab.services.requeue(None) == 0
    for method in (lab.services.add_messages, lab.services.add_boot_log_entry):
        with pytest.raises(AgentError, match="not a valid workspace id"):
            method({"workspace": "../x"})
    lab.services.workspace_tokens.store("w1", "token-of-w1")
    lab.services.start()
    wait_for(lambda: lab.sent("/messages"), "the delivery")


def test_the_status_has_all_its_parts_and_is_json(lab: Lab) -> None:
    parts = {
        "node_id", "control_plane_url", "contact", "inbound", "server", "token", "firewall", "ready", "errors",
        "outbox", "sessions", "packages", "workspaces", "services",
    }  # fmt: skip
    assert set(lab.services.snapshot()) == parts
    lab.services.start()
    assert set(json.loads(json.dumps(lab.services.snapshot()))) == parts


def test_without_a_fake_a_client_sends_over_the_transport(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "root")
    config = AgentConfig("n1", "https://127.0.0.1:1", lab.config.token_file, None, 0, True)
    services = Services(config, lab.paths, lab.watcher, lab.recording, lab.transport)
    services.start()
    wait_for(lambda: services.snapshot()["contact"]["state"] == "failing", "the first heartbeat to fail")
    assert services.snapshot()["contact"]["cause"]["code"] == "unreachable"
    services.close()
