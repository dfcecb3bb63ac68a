# SPDX-License-Identifier: Apache-2.0
"""System information of this machine, its programs faked: what they answer, refuse, or never say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sammy_agent.base.runtime.fake_clock import FakeClock
from sammy_agent.base.runtime.fake_process import FakePrograms
from sammy_agent.node import system_info
from sammy_agent.node.system_info import SystemInfo

BOX = {"ID": "c0ffee", "Names": "box", "Image": "debian:12", "State": "running", "Status": "Up", "CreatedAt": "today"}


@pytest.fixture
def programs() -> FakePrograms:
    fake = FakePrograms()
    fake.answer("docker", "version", stdout="20.10.24\n")
    fake.answer("docker", "ps", stdout=f"{json.dumps(BOX)}\nno json\n{json.dumps({**BOX, 'ID': 'other'})}\n")
    fake.answer("docker", "stats", stdout=json.dumps({"ID": "c0ffee", "CPUPerc": "1.50%", "MemPerc": "--"}) + "\n")
    fake.answer("node", stdout="v18.19.0\n")
    return fake


def test_containers_and_versions_are_what_the_programs_print(programs: FakePrograms) -> None:
    found = SystemInfo(programs).get()
    assert found["software"] == {"nodeVersion": "18.19.0", "dockerVersion": "20.10.24"}, "no devcontainer here"
    docker = found["docker"]
    assert (docker["version"], docker["containers"], docker.get("error")) == ("20.10.24", 2, None)
    box, other = docker["containerList"]
    assert (box["name"], box["cpuPercent"], box["memPercent"]) == ("box", 1.5, None)
    assert (other["id"], other["cpuPercent"]) == ("other", None), "no statistics of it"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 1, "stderr": "Cannot connect to the daemon.\n"}, "docker: Cannot connect to the daemon."),
        ({"status": None, "problem": "No such file or directory"}, "docker: No such file or directory"),
        ({"status": -15, "problem": "was not done within 10 s"}, "docker: was not done within 10 s"),
        ({"status": 1, "stderr": "x" * 900}, "docker: " + "x" * 492),
    ],
)  # fmt: skip
def test_why_docker_says_nothing(programs: FakePrograms, answer: dict[str, Any], error: str) -> None:
    programs.answer("docker", "version", **answer)
    found = SystemInfo(programs).get()
    assert found["docker"] == {"version": None, "containers": 0, "containerList": [], "error": error}
    assert "dockerVersion" not in found["software"]


def test_programs_that_fail_beside_it_cost_their_own_part(programs: FakePrograms) -> None:
    programs.answer("docker", "stats", status=1, stdout=json.dumps({"ID": "c0ffee", "CPUPerc": "9%"}))
    programs.answer("node", status=1, stdout="v18\n", stderr="broken\n")
    found = SystemInfo(programs).get()
    assert found["docker"]["containers"] == 2 and found["docker"]["containerList"][0]["cpuPercent"] is None
    assert found["software"] == {"dockerVersion": "20.10.24"}


def test_an_answer_is_good_for_some_seconds_and_versions_for_longer(programs: FakePrograms) -> None:
    clock = FakeClock()
    info = SystemInfo(programs, clock)
    first = info.get()
    assert info.get() is first and len(programs.calls) == 5
    clock.advance(system_info.MAX_AGE)
    assert info.get() is not first and len(programs.calls) == 8
    clock.advance(system_info.VERSIONS_MAX_AGE)
    info.get()
    assert len(programs.calls) == 13
    assert set(programs.deadlines) == {system_info.DOCKER_DEADLINE, system_info.VERSION_DEADLINE}


def test_the_machine_has_the_wires_shape(programs: FakePrograms) -> None:
    found = SystemInfo(programs).get()
    for part in ("memory", "disk"):
        assert found[part]["totalBytes"] >= found[part]["usedBytes"] > 0 and 0 < found[part]["usedPercent"] <= 100
    assert found["disk"]["mountPath"] == "/" and found["cpu"]["numCpu"] >= 1
    assert found["uptime"]["humanFormat"].endswith("m") and found["agent"]["residentBytes"] > 1_000_000
    assert set(found["network"]) <= {"interface", "rxBytes", "txBytes"}


@pytest.mark.parametrize(("seconds", "text"), [(59, "0h 0m"), (3_725, "1h 2m"), (90_061, "1d 1h 1m")])
def test_uptime_for_people(seconds: int, text: str) -> None:
    assert system_info._uptime(seconds) == {"seconds": seconds, "humanFormat": text}
