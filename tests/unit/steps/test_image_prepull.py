# SPDX-License-Identifier: Apache-2.0
"""Pulls against a dockerd that is a real HTTP server on a real Unix socket, speaking as dockerd does."""

from __future__ import annotations

import http.server
import itertools
import json
import socketserver
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cc_sammy import config
from cc_sammy.contract.run_record import RunRecord, StepRecord
from cc_sammy.engine.runner import Runner
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps import image_prepull
from cc_sammy.steps.base import Step
from cc_sammy.system import docker_api as engine
from tests.unit.test_runner import Listener

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


BREAKS_OFF = {"status": "killed in the middle"}


def messages(digest: str) -> list[dict[str, Any]]:
    return [
        {"status": "Pulling from library/x", "id": "latest"},
        {"status": "Already exists", "progressDetail": {}, "id": "aaa"},
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "bbb"},
        *({"status": "Downloading", "progressDetail": {"current": n * 10**6}, "id": "bbb"} for n in range(1, 31)),
        {"status": "Pull complete", "progressDetail": {}, "id": "bbb"},
        {"status": f"Digest: {digest}"},
        {"status": "Status: Downloaded newer image for x"},
    ]


class Dockerd(socketserver.ThreadingUnixStreamServer):
    """`images` are there by name; `pulls` says what pulling one answers; a pull meets the others at `meeting`."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.images: dict[str, list[str]] = {}
        self.pulls: dict[str, Iterable[dict[str, Any]]] = {}
        self.meeting: threading.Barrier | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """Somebody hung up in the middle: that is what a deadline does."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Dockerd

    def do_GET(self) -> None:
        name = urllib.parse.unquote(self.path.removeprefix("/images/").removesuffix("/json"))
        found = self.server.images.get(name)
        if self.path == "/_ping":
            self._answer(200, b"OK")
        elif found is None:
            self._answer(404, b'{"message": "No such image"}')
        else:
            self._answer(200, json.dumps({"Id": "sha256:id", "RepoDigests": found}).encode())

    def do_POST(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = query["fromImage"][0] + (":latest" if "tag" in query else "")
        if self.server.meeting is not None:
            self.server.meeting.wait(timeout=30)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for message in self.server.pulls[name]:
            if message == BREAKS_OFF:
                self.close_connection = True
                return
            raw = json.dumps(message).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            if "Digest" in str(message):
                repository = name.rpartition(":")[0]
                self.server.images[name] = [f"other@{TWO}", f"{repository}@{message['status'].split()[1]}"]
                self.server.images[name.removesuffix(":latest")] = self.server.images[name]
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    path = f"{tmp_path}/docker.sock"
    monkeypatch.setattr(engine, "SOCKET", path)
    with Dockerd(path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(*images: str) -> tuple[StepRecord, list[str]]:
    loaded = config.load({"image_prepull": {"images": list(images)}})
    record = RunRecord("r", "b", "i", 0.0, "", steps=[StepRecord(image_prepull.STEP.name)])
    listener = Listener()
    alone = Step("image-prepull", "image_prepull", image_prepull.already_done, image_prepull.run)
    Runner([alone], Host(), loaded, record, listener).run()
    return record.steps[0], [what for _, what in listener.told]


def test_images_are_pulled_side_by_side_with_coarse_progress_and_their_digests_kept(dockerd: Dockerd) -> None:
    dockerd.meeting = threading.Barrier(2)  # broken, and so failed, unless both pulls are under way at once
    dockerd.pulls = {"box:1": messages(ONE), "tool:latest": messages(TWO)}
    record, told = run("box:1", "tool")
    assert (record.status.value, record.reason) == ("completed", "")
    assert record.results == {"box:1": ONE, "tool": TWO}
    assert [line for line in told if line.startswith("box:1: ")] == [
        "box:1: 1 of 1 layers, 0 MB fetched",
        "box:1: 2 of 2 layers, 30 MB fetched",
        f"box:1: Digest: {ONE}",
        "box:1: Status: Downloaded newer image for x",
    ]


def test_an_image_that_is_there_is_not_pulled_and_its_digest_is_kept_too(dockerd: Dockerd) -> None:
    dockerd.images = {"registry.invalid:5000/box": [f"registry.invalid:5000/box@{ONE}"], "built-here": []}
    record, _ = run("registry.invalid:5000/box", "built-here")
    assert (record.status.value, record.reason) == ("skipped", "2 images are present")
    assert record.results == {"registry.invalid:5000/box": ONE, "built-here": "sha256:id"}


def test_one_image_that_cannot_be_had_is_named_and_the_other_is_there(dockerd: Dockerd) -> None:
    dockerd.pulls = {
        "box:1": messages(ONE),
        "gone:1": [{"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}],
    }
    record, _ = run("box:1", "gone:1")
    assert record.reason.startswith("could not pull gone:1: manifest unknown")
    assert "box:1" in dockerd.images


def test_a_dockerd_that_dies_in_the_middle_is_asked_again(dockerd: Dockerd) -> None:
    dockerd.pulls = {"box:1": [*messages(ONE)[:4], BREAKS_OFF]}
    with pytest.raises(StepFailed, match="aborted the pull") as failure:
        image_prepull.run(Host(), config.load({"image_prepull": {"images": ["box:1"]}}))
    assert failure.value.transient


def test_a_pull_has_its_deadline_also_while_messages_come(dockerd: Dockerd) -> None:
    dockerd.pulls = {"box:1": itertools.repeat({"status": "Downloading", "id": "aaa"})}
    with pytest.raises(StepFailed, match=r"could not pull box:1: not finished after") as failure:
        engine.pull("box:1", 0.5, lambda line: None)
    assert failure.value.transient
