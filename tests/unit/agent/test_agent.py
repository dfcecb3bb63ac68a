# SPDX-License-Identifier: Apache-2.0
"""The agent itself, with services that are told what to do: its start, what it survives, its status and its end."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord
from sammy_agent import __version__
from sammy_agent.base.errors import AgentError, Code, Problem
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.clock import this_boot
from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon import agent as agent_module
from sammy_agent.daemon.agent import CONFIG_RETRY, TASK_TIMEOUT, Agent
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from sammy_agent.node import instance_id
from sammy_agent.transport import TransportError


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


class Idle(Worker):
    """A task that waits."""

    def run_once(self) -> None:
        return None


class FakeServices:
    """Takes the place of `Services`; `delays` are what start and retry answer, in their order."""

    def __init__(self, delays: list[float | None] | None = None) -> None:
        self.delays, self.done = delays or [], list[str]()
        self.tasks: list[Worker] = []
        self.received: list[dict[str, Any]] = []
        self.recent_events = self

    def start(self) -> float | None:
        return self._next("start")

    def retry(self) -> float | None:
        return self._next("retry")

    def close(self) -> None:
        self.done.append("close")
        for task in self.tasks:
            task.stop()

    def workers(self) -> list[Worker]:
        return self.tasks

    def snapshot(self) -> dict[str, Any]:
        return {"node_id": "n1", "services": {}}

    def network_changed(self, reason: str) -> None:
        self.done.append(f"network_changed {reason}")

    def token_changed(self) -> None:
        self.done.append("token_changed")

    def add_messages(self, document: dict[str, Any]) -> None:
        self.received.append(document)

    add_boot_log_entry = update_session = add_messages

    def requeue(self, ids: list[str] | None) -> int:
        return 7 if ids is None else len(ids)

    def _next(self, what: str) -> float | None:
        self.done.append(what)
        return self.delays.pop(0) if self.delays else None


class Lab:
    """An agent below a root of its own; `build` answers with `services`, or raises what `broken` holds."""

    def __init__(self, root: Path) -> None:
        self.paths, self.clock = Paths(str(root)), FakeClock(auto_advance=False)
        self.services = FakeServices()
        self.broken: list[Exception] = []
        self.built = 0
        self.ended: list[bool] = []
        self.agent = Agent(self.paths, build=self.build, terminate=lambda: self.ended.append(True), clock=self.clock)

    def build(self, *_: object) -> Any:
        self.built += 1
        if self.broken:
            raise self.broken[0]
        return self.services

    def configure(self, **values: Any) -> None:
        document = {"node_id": "n1", "control_plane_url": "https://control-plane.test", **values}
        files.write(self.paths.config, json.dumps(document))

    def instance(self, name: str) -> None:
        files.write(self.paths.under_root(instance_id.THIS_BOOT), name)

    def start(self) -> None:
        self.agent.start()
        assert self.agent.join(10), "it waits"

    def ask(self, verb: str, text: str = "") -> dict[str, Any]:
        return self.agent.verbs()[verb](text)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(json.dumps(self.ask("status")))
        return status

    def pass_time(self, until: Callable[[], Any], what: str) -> None:
        """Let the fake clock run until something is so."""

        def so() -> bool:
            self.clock.advance(1.0)
            return bool(until())

        wait_for(so, what)

    def event_types(self) -> list[str]:
        return [event["type"] for event in EventStore(self.paths.events, boot_id="b").events(EventQuery(limit=50))]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.agent.stop()


def test_nothing_happens_before_the_start(tmp_path: Path) -> None:
    before = threading.active_count()
    lab = Lab(tmp_path)
    assert threading.active_count() == before and list(tmp_path.iterdir()) == []
    status = lab.status()
    assert (status["version"], status["pid"]) == (__version__, os.getpid())
    assert status["provisioning"] == {"phase": "waiting"} and status["services"] == {}
    assert lab.agent.is_alive()
    lab.agent.stop()
    lab.agent.stop()


def test_without_a_control_plane_it_records_and_nothing_more(lab: Lab) -> None:
    lab.start()
    assert lab.built == 0 and lab.agent.is_alive() and lab.agent.exit_status == 0
    assert lab.status()["config_problem"] is None
    assert lab.ask("history") == {"changes": [], "forgotten": 0} and lab.ask("token-changed") == {}
    for verb in ("messages", "say", "boot-log", "session-activity", "activity", "outbox-requeue"):
        with pytest.raises(AgentError, match="no control plane is configured"):
            lab.ask(verb, "{}")
    lab.agent.record_stop_signal(signal.SIGTERM)
    lab.agent.stop()
    assert lab.event_types() == ["agent.stopped", "agent.started"]


def test_with_one_its_services_are_started_asked_and_closed(lab: Lab) -> None:
    lab.configure()
    lab.instance("i-1")
    lab.start()
    assert lab.services.done == ["start"]
    assert (lab.status()["node_id"], lab.status()["instance_id"]) == ("n1", "i-1")
    assert files.read(lab.paths.instance) == "i-1\n"
    assert lab.ask("history") == lab.services.snapshot()
    for verb in ("messages", "say", "boot-log", "session-activity", "activity"):
        assert lab.ask(verb, f'{{"verb": "{verb}"}}') == {}
        assert lab.services.received[-1] == {"verb": verb}
    assert lab.ask("outbox-requeue") == {"requeued": 7} and lab.ask("outbox-requeue", '["a"]') == {"requeued": 1}
    assert lab.ask("token-changed") == lab.ask("network-changed") == lab.ask("network-changed", "docker") == {}
    assert lab.services.done[1:] == [
        "token_changed",
        "network_changed reported over the control socket",
        "network_changed docker",
    ]
    assert lab.status()["network_changes"] == ["", "docker"]
    lab.agent.stop()
    assert lab.services.done[-1] == "close"


@pytest.mark.parametrize(
    ("text", "said"), [("[", "not valid JSON"), ("[" * 100_000, "not valid JSON"), ("[]", "not a JSON object")]
)
def test_what_is_no_document_is_refused(lab: Lab, text: str, said: str) -> None:
    lab.configure()
    lab.start()
    with pytest.raises(AgentError, match=said):
        lab.ask("messages", text)
    assert lab.services.received == []


def test_only_the_last_changes_of_the_network_are_kept(lab: Lab) -> None:
    for number in range(150):
        lab.ask("network-changed", str(number))
    assert lab.status()["network_changes"] == [str(number) for number in range(50, 150)]


def test_services_that_could_not_be_started_are_started_again(lab: Lab) -> None:
    lab.configure()
    lab.services.delays = [5.0, 3.0]
    lab.agent.start()
    wait_for(lambda: lab.services.done == ["start"], "the start")
    assert not lab.agent.join(0.02)
    lab.pass_time(lambda: lab.agent.join(0.01), "nothing to be left")
    assert lab.services.done == ["start", "retry", "retry"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransportError("the authority file cannot be used", "It must be a readable PEM file"), "transport"),
        (AgentError(Problem(Code.AGENT_CONFIG_INVALID, "it is damaged")), "agent-config-invalid"),
        (OSError(errno.EIO, "Input/output error", "/etc/x"), "config-unreadable"),
    ],
)
def test_a_configuration_that_is_not_usable_is_said_once_and_read_again(
    lab: Lab, error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    lab.configure()
    lab.broken = [error]
    lab.agent.start()
    lab.pass_time(lambda: lab.built >= 4, "three more attempts")
    assert lab.status()["config_problem"]["code"] == code
    assert [record.levelname for record in caplog.records if record.name == agent_module.__name__] == ["ERROR"]
    assert lab.agent.is_alive(), "what records works meanwhile"
    lab.broken = []
    lab.pass_time(lambda: lab.agent.join(0.01), "the start")
    assert lab.services.done == ["start"] and lab.status()["config_problem"] is None
    assert lab.clock.monotonic() - 1000 >= 3 * CONFIG_RETRY


def test_a_configuration_that_is_damaged_is_a_problem(lab: Lab) -> None:
    files.write(lab.paths.config, "{")
    lab.agent.start()
    wait_for(lambda: (lab.status()["config_problem"] or {}).get("code") == "agent-config-invalid", "the problem")
    assert lab.built == 0


def test_an_end_in_the_middle_of_the_start_closes_what_was_built(lab: Lab) -> None:
    lab.configure()
    building, go_on = threading.Event(), threading.Event()
    build = lab.build

    def slow(*_: object) -> Any:
        building.set()
        assert go_on.wait(10)
        return build()

    lab.agent._build = slow
    lab.agent.start()
    assert building.wait(10)
    lab.agent.stop()
    go_on.set()
    assert lab.agent.join(10)
    assert lab.services.done == ["close"] and lab.ended == [] and lab.agent.exit_status == 0


def test_a_bug_in_the_start_ends_the_agent_for_systemd_to_start_it_again(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.configure()
    lab.broken = [ZeroDivisionError()]
    lab.start()
    assert lab.ended == [True] and lab.agent.exit_status == 1
    assert caplog.records[-1].exc_info


def test_a_disk_that_does_not_take_the_instance_id_is_waited_for(lab: Lab) -> None:
    lab.configure()
    lab.instance("i-1")
    Path(lab.paths.instance).mkdir(parents=True)  # nothing can be put in its place; reading it is an error, too
    Path(lab.paths.instance, "x").touch()
    lab.agent.start()
    wait_for(lambda: lab.ended, "the end")
    assert lab.agent.exit_status == 1, "whose disk this is cannot be known"


def test_a_full_disk_delays_the_instance_id_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    full, persist = [True], instance_id.persist

    def persisting(paths: Paths, found: str | None) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        persist(paths, found)

    monkeypatch.setattr(instance_id, "persist", persisting)
    lab.configure()
    lab.instance("i-1")
    lab.agent.start()
    wait_for(lambda: lab.services.done == ["start"], "the services")
    lab.clock.advance(2 * CONFIG_RETRY)
    assert not lab.agent.join(0.05) and files.read(lab.paths.instance) is None
    full.clear()
    lab.pass_time(lambda: lab.agent.join(0.01), "the instance id to be saved")
    assert files.read(lab.paths.instance) == "i-1\n"


def test_a_machine_that_turns_out_to_be_another_restarts_the_agent(lab: Lab) -> None:
    lab.start()
    assert lab.status()["instance_id"] is None
    lab.agent._check_instance()
    assert not lab.agent.wants_restart, "still not known"
    lab.instance("i-1")
    lab.agent._check_instance()
    assert lab.status()["instance_id"] == "i-1" and files.read(lab.paths.instance) == "i-1\n"
    lab.agent._check_instance()
    assert not lab.agent.wants_restart and lab.ended == []
    lab.instance("i-2")
    record = RunRecord("r", this_boot(), "i-2", 1.0, "2026-01-01T00:00:00+00:00", Outcome.READY)
    files.write(lab.paths.state, record.to_json())
    lab.ask("network-changed", "wakes the watcher")
    wait_for(lambda: lab.agent.wants_restart, "the change of the state to be seen")
    assert lab.ended == [True]


def test_it_is_alive_as_long_as_no_task_hangs_or_has_ended(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.configure()
    lab.services.tasks = [Idle("busy", lab.clock)]
    lab.start()
    (task,) = lab.services.tasks
    assert not lab.agent.is_alive(), "it never ran"
    task.start()
    assert lab.agent.is_alive()
    task._busy_since = lab.clock.monotonic()
    lab.clock.advance(TASK_TIMEOUT + 1)
    assert not lab.agent.is_alive()
    assert "task busy has been blocked for 301 s" in caplog.records[-1].getMessage()
    task._busy_since = None
    assert lab.agent.is_alive()


def test_a_task_of_the_node_itself_that_cannot_start_is_in_the_status_and_retried(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = threading.Thread.start, ["recorder", "metrics", "provisioning"]

    def start(thread: threading.Thread) -> None:
        if thread.name in broken:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    lab.configure()
    lab.agent.start()
    wait_for(lambda: lab.services.done == ["start"], "the services, which work all the same")
    assert set(lab.status()["services"]) == {"recorder", "metrics", "provisioning"}
    broken.clear()
    lab.pass_time(lambda: lab.agent.join(0.01), "the retry")
    assert lab.status()["services"] == {} and lab.agent.is_alive()
    lab.agent.stop()
    assert lab.event_types().count("agent.started") == 1


def test_the_process_is_ended_as_systemd_would(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call))
    agent_module.terminate()
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_the_real_services_are_built_from_the_configuration(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.configure()
    lab.agent._build = agent_module.build_services
    lab.agent._stop.set()  # built, and closed before the start
    assert lab.agent._configure() is None
    assert lab.status()["control_plane_url"] == "https://control-plane.test"
