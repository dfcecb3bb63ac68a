# SPDX-License-Identifier: Apache-2.0
"""`sammy status` over a state file and an agent's socket, both made here; the real ones are in tests/vm."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.cli.main import main
from cc_sammy.contract import paths
from cc_sammy.contract.run_record import Outcome, RunRecord, Status, StepRecord

TOP = Path(__file__).parents[3]
ANSWER: dict[str, Any] = {
    "ok": True,
    "node_id": "node-7",
    "control_plane_url": "https://192.0.2.1:8787",
    "contact": {"state": "ok", "last_beat_age_s": 12.0, "clock_offset_s": 0.3, "cause": None},
    "token": {"state": "ok", "seconds_left": 43200.0, "problem": None},
    "ready": {"state": "acknowledged", "acknowledged_at": "2026-11-24T11:00:00+00:00", "cause": None},
}
CAUSE = {"code": "x", "text": "the control plane answers 500", "next_step": "Look at its log"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def write(outcome: Outcome, reason: str = "", status: Status = Status.COMPLETED) -> None:
        step = StepRecord("docker", status, reason=reason, duration_ms=1.0)
        record = RunRecord("20261124T104646-1", "b", "i", 1.0, "", outcome, reason, 9100.0, [step])
        (tmp_path / "state.json").write_text(record.to_json())

    def load(path: str = "") -> RunRecord:
        return RunRecord.from_json((tmp_path / "state.json").read_text())

    monkeypatch.setattr("cc_sammy.common.run_records.load", load)
    monkeypatch.setattr(paths, "AGENT_CONFIG", str(tmp_path / "agent.json"))
    monkeypatch.setattr(paths, "AGENT_SOCKET", str(tmp_path / "agent.sock"))
    return write


@pytest.fixture
def agent(state: Callable[..., None], tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    (tmp_path / "agent.json").write_text("{}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "agent.sock"))
    listener.listen()
    threads = []

    def answers(answer: dict[str, Any]) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"status\n"
                connection.sendall(json.dumps(answer).encode() + b"\n")

        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    yield answers
    for thread in threads:
        thread.join()
    listener.close()


def test_a_node_in_contact_is_well(state: Any, agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state(Outcome.READY)
    agent(ANSWER)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "node is ready after 9.1 s" in said
    assert "contact        yes, last beat 12 s ago" in said
    assert "token          good for 12 h" in said
    assert "clock          agrees with the control plane's" in said


@pytest.mark.parametrize(
    "fault",
    [
        (
            "contact",
            {"state": "failing", "since": "x", "cause": CAUSE},
            "the control plane answers 500. Look at its log",
        ),
        ("contact", {"state": "failing", "cause": CAUSE, "clock_offset_s": 31536000.0}, "is 365 d behind"),
        ("token", {"state": "expired"}, "expired; a new one: sammy-agent token set"),
        ("store", {"problem": "No space left on device"}, "No space left on device"),
        ("store", {"problem": "", "damage": "events.db was damaged"}, "event store    events.db was damaged"),
        ("store", {"problem": "", "lost": 7}, "7 events were lost. See `sammy events --type events.lost`"),
        ("metrics", {"problem": "database is full", "lost": 3}, "metrics        database is full"),
        ("server", {"port": 8443, "problem": None}, "listens on port 8443; the control plane has not connected yet"),
        ("server", {"port": 8443, "problem": CAUSE}, "server         the control plane answers 500. Look at its log"),
        ("ready", {"state": "waiting", "cause": CAUSE}, "not acknowledged yet: the control plane answers 500"),
    ],
)
def test_the_cause_is_named(
    fault: tuple[str, Any, str], state: Any, agent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    part, value, words = fault
    state(Outcome.READY)
    agent({**ANSWER, part: value})
    assert main(["status"]) == (1 if part == "contact" else 0)
    assert words in capsys.readouterr().out


def test_no_agent_where_one_should_be_is_said(state: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state(Outcome.READY)
    assert main(["status"]) == 0
    (tmp_path / "agent.json").write_text("{}")
    assert main(["status"]) == 1
    assert "does not answer. Look at: journalctl -b -u sammy-agent" in capsys.readouterr().out


def test_a_failed_node_says_the_next_step(state: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state(Outcome.FAILED, "no space left on device", Status.FAILED)
    assert main(["status"]) == 1
    said = capsys.readouterr().out
    assert "no space left on device" in said
    assert "cloud-init single --name sammy" in said


def test_json_has_both(state: Any, agent: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state(Outcome.READY)
    agent(ANSWER)
    main(["status", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["outcome"], document["agent"]["node_id"]) == ("ready", "node-7")


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ({"waiting": 1, "sent": 0, "problem": "answered 503"}, "1 to go to the control plane by itself: answered 503"),
        ({"waiting": 0, "sent": 3, "problem": None}, ""),
        (None, ""),
    ],
    ids=["waits", "sent", "opted out"],
)
def test_a_debug_package_that_waits_is_told_with_what_keeps_it(
    packages: dict[str, Any] | None, told: str, state: Any, agent: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    state(Outcome.READY)
    agent({**ANSWER, "packages": packages})
    main(["status"])
    said = capsys.readouterr().out
    assert told in said and ("debug package" in said) is bool(told)


def test_a_verb_loads_no_other_verbs_modules() -> None:
    """Each start is paid for: the firewall's rules and the configuration's types took half of `sammy status`."""
    program = "import sys; from cc_sammy.cli.main import main; main(['status']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TOP)
    loaded = set(done.stdout.split())
    assert "cc_sammy.cli.status" in loaded
    others = {"cc_sammy.cli.analyze", "cc_sammy.cli.timings", "cc_sammy.config", "cc_sammy.firewall", "cc_sammy.host"}
    assert not loaded & {*others, "subprocess", "ipaddress", "html"}
