# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.common import files
from cc_sammy.contract import paths
from cc_sammy.contract.journal_fields import USAGE_FIELDS
from cc_sammy.contract.run_record import Outcome, RunRecord, Status, StepRecord
from cc_sammy.engine import agent_notify, run_reporter, runner
from cc_sammy.engine.cloud_init_stages import StageTimeline
from cc_sammy.engine.journal_writer import JournalWriter
from cc_sammy.engine.run_reporter import RunReporter
from cc_sammy.engine.runner import Runner, overall_outcome
from cc_sammy.engine.schedule import startable
from cc_sammy.errors import StepFailed
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import Host
from cc_sammy.steps import declared
from cc_sammy.steps.base import Step
from tests.unit.fake_files import contents, disk_full, read_only

CONFIG = config.load({})


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def started(self, step: StepRecord) -> None:
        self.told.append((step.name, "started"))

    def ended(self, step: StepRecord) -> None:
        self.told.append((step.name, step.status.value))

    def retrying(self, step: StepRecord, reason: str, delay: float) -> None:
        self.told.append((step.name, f"attempt {step.attempt}"))

    def ready_early(self) -> None:
        self.told.append(("all", "ready early"))

    def output(self, step: str, line: str) -> None:
        self.told.append((step, line))


def nothing(host: Host, loaded: config.Config) -> None:
    return None


def fails(host: Host, loaded: config.Config) -> None:
    raise StepFailed("the disk is full", "Make room")


def breaks(host: Host, loaded: config.Config) -> None:
    raise KeyError("a fault of ours")


def reached(host: Host, loaded: config.Config) -> bool:
    return True


def step(name: str, run: object = nothing, **more: object) -> Step:
    return Step(name, "docker", nothing, run, **{"verify": reached, **more})  # type: ignore[arg-type]


def run(*steps: Step, user: dict[str, object] | None = None) -> tuple[RunRecord, Listener]:
    loaded = config.load(user or {})
    record = RunRecord("r", "b", "i", 0.0, "")
    record.steps = [StepRecord(one.name, required=one.is_required(loaded)) for one in steps]
    listener = Listener()
    Runner(steps, FakeHost(), loaded, record, listener).run()
    return record, listener


def test_one_at_a_time_is_the_declared_order() -> None:
    _, listener = run(step("a"), step("b"), step("c"), user={"max_parallel": 1})
    assert listener.told == [(name, what) for name in "abc" for what in ("started", "completed")]


def test_independent_steps_overlap() -> None:
    meeting = threading.Barrier(2)

    def meet(host: Host, loaded: config.Config) -> None:
        meeting.wait(timeout=30)  # broken, and so failed, unless both are inside at once

    record, _ = run(step("a", meet), step("b", meet))
    assert [one.status for one in record.steps] == [Status.COMPLETED] * 2


def test_what_is_used_alone_is_never_shared() -> None:
    a, b = step("a", exclusive_resources=frozenset({"apt"})), step("b", exclusive_resources=frozenset({"apt"}))
    pending = {"a": Status.PENDING, "b": Status.PENDING}
    assert startable([a, b], pending, (), 4) == [a]
    assert startable([a, b], pending, {"apt"}, 4) == []


def test_a_failure_stops_only_what_needs_it_and_is_told_in_words() -> None:
    record, _ = run(step("a", fails), step("b", needs=("a",)), step("c", after=("a",)), step("d", breaks))
    assert [one.status.value for one in record.steps] == ["failed", "failed", "completed", "failed"]
    assert record.step("a").reason == "the disk is full. Make room"
    assert record.step("b").reason == "not started: it needs a, which failed"
    assert "internal error" in record.step("d").reason
    assert overall_outcome(record)[0] is Outcome.FAILED


def test_a_step_that_ran_and_left_its_goal_unmet_has_failed() -> None:
    record, _ = run(step("a", verify=None))
    assert record.step("a").reason.startswith("it ran to its end, but its goal is not met")
    reasons = iter([None, "there now"])

    def satisfied_by_the_work(host: Host, loaded: config.Config) -> str | None:
        return next(reasons)

    record, _ = run(Step("b", "docker", satisfied_by_the_work, nothing))
    assert record.step("b").status is Status.COMPLETED


def after_failing(times: int, *, transient: bool) -> Callable[[Host, config.Config], None]:
    left = iter(range(times))

    def work(host: Host, loaded: config.Config) -> None:
        if next(left, None) is not None:
            raise StepFailed("the mirror is away", transient=transient)

    return work


def test_a_cause_that_may_pass_is_tried_again_and_each_attempt_is_told() -> None:
    record, listener = run(step("a", after_failing(2, transient=True), retries=2))
    assert (record.step("a").status, record.step("a").attempt) == (Status.COMPLETED, 3)
    assert [what for _, what in listener.told] == ["started", "attempt 2", "attempt 3", "completed"]


def test_the_record_holds_what_a_steps_commands_used_and_nothing_where_it_ran_none() -> None:
    def work(host: Host, loaded: config.Config) -> None:
        host.run(["sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"])

    steps = (step("a", work), step("b"))
    record = RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord(one.name) for one in steps])
    Runner(steps, Host(), CONFIG, record, Listener()).run()
    cpu = record.step("a").cpu_ms
    assert cpu is not None and cpu > 0 and record.step("a").written_bytes is not None
    assert {getattr(record.step("b"), key) for key in USAGE_FIELDS.values()} == {None}


def test_the_first_and_the_last_attempt_are_both_kept_and_one_attempt_is_not_kept_twice() -> None:
    reasons = iter(["no route", "no answer"])

    def work(host: Host, loaded: config.Config) -> None:
        host.sleep(3)
        if (reason := next(reasons, None)) is not None:
            raise StepFailed(reason, transient=True)

    record, _ = run(step("a", work, retries=2), user={"max_parallel": 1})
    a = record.step("a")
    assert a.first is not None and a.last is not None
    assert (a.first.started, a.first.reason, a.last.reason) == (100.0, "no route", "")
    assert [a.first.duration_ms, a.last.duration_ms] == pytest.approx([3000, 3000])
    # the whole is three attempts and two pauses
    assert a.last.started + a.last.duration_ms / 1000 == pytest.approx(100 + (a.duration_ms or 0) / 1000)
    assert (a.duration_ms or 0) > 9000
    once, _ = run(step("a"))
    assert (once.step("a").first, once.step("a").last) == (None, None)


def test_attempts_end_and_what_cannot_pass_is_not_tried_again() -> None:
    record, _ = run(
        step("a", after_failing(9, transient=True), retries=2), step("b", after_failing(1, transient=False), retries=2)
    )
    assert [(one.status, one.attempt) for one in record.steps] == [(Status.FAILED, 3), (Status.FAILED, 1)]


def test_a_last_attempt_that_says_little_does_not_hide_the_cause() -> None:
    reasons = iter(["could not resolve mirror.invalid", "killed after 0 s"])

    def work(host: Host, loaded: config.Config) -> None:
        raise StepFailed(next(reasons), transient=True)

    record, _ = run(step("a", work, retries=1))
    assert record.step("a").reason == "killed after 0 s; the previous attempt: could not resolve mirror.invalid"


def test_pauses_are_spread_and_bounded() -> None:
    pauses = [runner.retry_delay(attempt) for attempt in range(2, 12) for _ in range(50)]
    assert max(pauses) <= runner.MAX_RETRY_DELAY
    assert max(runner.retry_delay(2) for _ in range(50)) <= runner.MIN_RETRY_DELAY
    assert len({round(pause, 3) for pause in pauses}) > 100


def test_what_has_not_begun_by_the_runs_deadline_fails_and_says_so() -> None:
    def slow(host: Host, loaded: config.Config) -> None:
        host.sleep(100)

    record, _ = run(step("a", slow), step("b", after=("a",)), user={"run_deadline": 60})
    assert record.step("a").status is Status.COMPLETED
    assert record.step("b").reason == "not started: the run's 60 s (sammy.run_deadline) had passed"


@pytest.mark.parametrize(
    ("required", "told"),
    [
        (False, [("b", "started"), ("all", "ready early"), ("b", "completed")]),
        (True, [("b", "started"), ("b", "completed")]),
    ],
)
def test_readiness_waits_for_a_step_in_the_background_only_where_it_is_required(
    required: bool, told: list[tuple[str, str]]
) -> None:
    background = replace(step("b", after=("a",)), section="image_prepull", blocks_ready=False)
    _, listener = run(step("a"), background, user={"image_prepull": {"required": required}})
    assert listener.told == [("a", "started"), ("a", "completed"), *told]


def test_a_run_that_is_stopped_leaves_no_command_and_says_of_each_step_how_far_it_came(tmp_path: Path) -> None:
    def long(host: Host, loaded: config.Config) -> None:
        host.run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"], timeout=500)

    class Stopping(Listener):
        """SIGTERM as cloud-init makes it: an exception in the thread that coordinates."""

        def output(self, step: str, line: str) -> None:
            raise AssertionError

        def started(self, step: StepRecord) -> None:
            super().started(step)
            if step.name == "b":
                while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                    time.sleep(0.01)
                raise SystemExit(1)

    steps = (step("a", long, retries=2), step("b"), step("c", after=("a",)))
    record = RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord(one.name) for one in steps])
    listener = Stopping()
    with pytest.raises(SystemExit):
        Runner(steps, Host(), CONFIG, record, listener).run()
    assert [one.status for one in record.steps] == [Status.FAILED] * 3
    assert "was ended, for the run was stopped from outside" in record.step("a").reason
    assert record.step("b").reason == "interrupted: the run was stopped from outside"
    assert record.step("c").reason == "not started: the run was stopped from outside"
    assert overall_outcome(record)[0] is Outcome.FAILED
    pid = (tmp_path / "pid").read_text().strip()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_images_come_last_and_nothing_that_readiness_needs_waits_for_them() -> None:
    steps = {one.name: one for one in declared()}
    assert [name for name, one in steps.items() if not one.blocks_ready] == ["image-prepull"]
    assert [name for name, one in steps.items() if "image-prepull" in (*one.needs, *one.after)] == []


@pytest.fixture
def no_journald(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_reporter, "JournalWriter", lambda: JournalWriter(f"{tmp_path}/nobody"))


@pytest.mark.usefixtures("no_journald")
def test_ready_is_in_the_state_file_before_the_run_is_over_and_in_the_run_record_only_then(fs: FakeFilesystem) -> None:
    host, record = FakeHost(), RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord("a", Status.COMPLETED)])
    record.steps.append(StepRecord("b", Status.STARTED))
    reporter = RunReporter(host, record, StageTimeline(None))
    reporter.ready_early()
    reporter.ended(record.steps[0])
    reporter.record_writer.flush()

    def outcomes() -> list[str]:
        return [json.loads(files.read_text(path) or "")["outcome"] for path in (paths.STATE, f"{paths.RUNS}/r.json")]

    assert outcomes() == ["ready", "running"]
    record.outcome, record.reason = Outcome.DEGRADED, "b: no such image"
    reporter.run_ended()
    assert outcomes() == ["degraded", "degraded"]
    # everybody may read both: `sammy status` needs no root
    assert {fs.stat(path).st_mode & 0o777 for path in (paths.STATE, f"{paths.RUNS}/r.json")} == {0o644}


@pytest.mark.usefixtures("no_journald")
def test_a_disk_that_takes_nothing_stops_no_run_and_the_next_word_is_whole(fs: FakeFilesystem) -> None:
    fs.set_disk_usage(100_000)
    record = RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord("a", Status.COMPLETED)])
    reporter = RunReporter(FakeHost(), record, StageTimeline(None))
    for fault in (disk_full(fs), read_only("/")):
        with fault:
            reporter.run_started()
            reporter.ended(record.steps[0])
            reporter.record_writer.flush()
        assert contents(fs, "/var") == contents(fs, "/run") == {}
    record.outcome = Outcome.READY
    reporter.run_ended()
    assert [json.loads(text)["outcome"] for text in contents(fs).values()] == ["ready", "ready"]


@pytest.mark.usefixtures("no_journald")
def test_a_failure_is_told_at_the_end_only(fs: FakeFilesystem) -> None:
    host, record = FakeHost(), RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord("a", Status.FAILED)])
    RunReporter(host, record, StageTimeline(None)).ready_early()
    assert (record.outcome, contents(fs)) == (Outcome.RUNNING, {})


def test_a_failed_optional_step_degrades() -> None:
    record, _ = run(step("a", fails), user={"docker": {"required": False}})
    assert overall_outcome(record) == (Outcome.DEGRADED, "a: the disk is full. Make room")


def test_the_firewall_is_first_and_the_agent_needs_it() -> None:
    steps = declared()
    statuses = {one.name: Status.PENDING for one in steps}
    assert [one.name for one in startable(steps, statuses, (), 16)] == ["firewall"]
    assert "firewall" in next(one for one in steps if one.name == "agent-install").needs
    assert " ".join(one.name for one in steps) == (
        "packages docker firewall agent-install tls-permissions nodejs-install devcontainer-cli "
        "journald-config image-prepull docker-restart metadata-block"
    )


def test_a_change_of_the_network_is_told_at_once_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = f"{tmp_path}/agent.sock"
    monkeypatch.setattr(paths, "AGENT_SOCKET", path)
    agent_notify.notify_network_changed("firewall")  # no agent: no news, no error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(30)
        agent_notify.notify_network_changed("docker-restart")
        heard = []
        for _ in range(2):
            connection, _address = listener.accept()
            with connection:
                heard.append(connection.recv(100))
    assert heard == [b"network-changed docker-restart\n"] * 2
