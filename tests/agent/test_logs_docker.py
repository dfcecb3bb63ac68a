# SPDX-License-Identifier: Apache-2.0
"""Logs that Docker keeps itself, from a real dockerd with real containers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sammy_agent.base.runtime import process
from sammy_agent.diagnostics.logs import container_logs, merge
from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.logs.query import Query, parse
from tests.network.docker import Docker

pytestmark = pytest.mark.needs("root", "dockerd")
NAMESPACE = f"sammy-logs-{os.getpid()}"  # a killed run leaves its own behind and no other in the way
SPEAK = "i=0; while [ $i -lt 60 ]; do echo $NAME $i; [ $((i % 10)) = 0 ] && echo $NAME bad $i >&2; i=$((i+1)); done"


class Lab:
    """Docker with an image made of busybox alone."""

    def __init__(self, host: str) -> None:
        self.environment = {**process.ENVIRONMENT, "DOCKER_HOST": host}

    def run(self, *words: str) -> str:
        return subprocess.run(
            ["docker", *words], env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def container(self, name: str, script: str, *, driver: str = "json-file") -> None:
        self.run("run", "--detach", "--network=none", f"--log-driver={driver}", f"--env=NAME={name}", "--name", name,
                 "box:1", "/bin/sh", "-c", script)  # fmt: skip

    def source(self, query: Query) -> container_logs.ContainerLogs:
        return container_logs.ContainerLogs(query, self.environment)

    def page(self, **asked: str) -> merge.Page:
        query = parse(asked)
        return merge.read([self.source(query)], query)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    tree = tmp_path_factory.mktemp("image")
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin/sh").chmod(0o755)
    (tree / "bin/sleep").symlink_to("sh")
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        with Docker(NAMESPACE) as daemon:
            daemon.start()
            found = Lab(daemon.host)
            archive = subprocess.run(["tar", "-C", tree, "-c", "."], capture_output=True, check=True).stdout
            subprocess.run(["docker", "import", "-", "box:1"], input=archive, env=found.environment, check=True)
            for name in ("web", "db"):
                found.container(name, SPEAK)
            found.container("silent", "echo never", driver="none")
            found.run("wait", "web", "db", "silent")
            try:
                yield found
            finally:
                found.run("rm", "--force", *found.run("ps", "--all", "--quiet").split())
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def spoken(name: str) -> list[str]:
    return [f"{name} {number}" for number in range(60)] + [f"{name} bad {number}" for number in range(0, 60, 10)]


def test_pages_hold_every_line_once_over_containers_and_streams(lab: Lab) -> None:
    entries: list[Entry] = []
    cursor = ""
    while True:
        page = lab.page(limit="7", cursor=cursor)
        entries += page.entries
        cursor = page.cursor
        if not cursor:
            break
    assert sorted(entry.message for entry in entries) == sorted([*spoken("web"), *spoken("db")])
    assert [entry.time for entry in entries] == sorted((entry.time for entry in entries), reverse=True)
    for name in ("web", "db"):
        own = [entry.message for entry in entries if entry.metadata["container"] == name and entry.level == "info"]
        assert own == spoken(name)[:60][::-1]


def test_level_container_text_and_time_narrow_it(lab: Lab) -> None:
    assert {entry.message for entry in lab.page(level="error").entries} == {*spoken("web")[60:], *spoken("db")[60:]}
    assert {entry.metadata["container"] for entry in lab.page(container="w*").entries} == {"web"}
    assert [entry.message for entry in lab.page(search="WEB bad 5").entries] == ["web bad 50"]
    (middle,) = lab.page(search="web 30").entries
    stamp = middle.document()["timestamp"]
    before = lab.page(container="web", level="info", until=stamp).entries
    assert all(entry.time <= middle.time for entry in before) and middle in before
    later = lab.page(container="web", since=stamp).entries
    assert all(entry.time >= middle.time for entry in later) and later[-1].time == middle.time


def test_what_is_said_while_it_is_followed_comes_once(lab: Lab) -> None:
    query = Query(container="live-*")
    source = lab.source(query)
    live = source.tail(source.end_position())
    try:
        lab.container("live-1", "echo first; sleep 1; echo second; sleep 1; echo bad >&2; sleep 100")
        found: list[Entry] = []
        ends = time.monotonic() + 60
        while "bad" not in [entry.message for entry in found]:
            assert time.monotonic() < ends, found
            found += live.poll()
            time.sleep(0.05)
        assert [(entry.message, entry.level) for entry in found] == [
            ("first", "info"), ("second", "info"), ("bad", "error")
        ]  # fmt: skip
        lab.run("restart", "--time=0", "live-1")
        while [entry.message for entry in found].count("bad") < 2:
            assert time.monotonic() < ends, found
            found += live.poll()
            time.sleep(0.05)
        assert [entry.message for entry in found] == ["first", "second", "bad"] * 2
    finally:
        live.close()


def test_a_daemon_that_does_not_answer_is_said_in_words(tmp_path: Path) -> None:
    nobody = container_logs.ContainerLogs(Query(), {**process.ENVIRONMENT, "DOCKER_HOST": f"unix://{tmp_path}/sock"})
    page = merge.read([nobody], Query())
    assert page.entries == [] and len(page.notes) == 1
    assert page.notes[0].startswith("docker: ") and "Cannot connect to the Docker daemon" in page.notes[0]
