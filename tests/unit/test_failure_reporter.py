# SPDX-License-Identifier: Apache-2.0
"""The reporter of failures against a real HTTP server on loopback that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.contract import paths
from cc_sammy.contract.incident_id import ALPHABET, incident_id
from cc_sammy.contract.run_record import Outcome, RunRecord
from cc_sammy.engine import failure_reporter
from cc_sammy.engine.provision import provision
from cc_sammy.errors import ConfigError
from cc_sammy.host.fake import FakeHost
from tests.unit.fake_files import lay_out, new_disk

RUN = "20261124T104646-1a2b3c4d"


class Plane(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.seen: list[tuple[str, str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Plane

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def plane() -> Iterator[Plane]:
    server = Plane()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def disk(fs: FakeFilesystem) -> FakeFilesystem:
    new_disk(fs)
    lay_out(fs, {"/etc/sammy/token": "secret-token\n"})
    return fs


def make(url: str) -> failure_reporter.FailureReporter:
    loaded = config.load({"node_id": "node-7", "control_plane": {"url": url, "token_file": "/etc/sammy/token"}})
    record = RunRecord(RUN, "b", "i", 0.0, "", Outcome.FAILED, "docker: no space left")
    return failure_reporter.FailureReporter(FakeHost(), loaded, record)


def test_a_failure_is_told_with_its_reason_even_past_errors_of_the_control_plane(plane: Plane) -> None:
    plane.answers = [500, 503]
    made = make(plane.url)
    made.report_start()
    made.report_failure()
    path, authorization, body = plane.seen[-1]
    assert (path, authorization) == ("/api/nodes/node-7/errors", "Bearer secret-token")
    assert body["errors"][0]["message"] == "provisioning failed: docker: no space left"
    assert body["errors"][0]["incidentId"] == incident_id(RUN, "failed")
    assert [seen[2]["errors"][0]["level"] for seen in plane.seen] == ["info", "info", "info", "error"]


def test_the_beginning_is_told_in_the_first_boot_only(plane: Plane, disk: FakeFilesystem) -> None:
    made = make(plane.url)
    lay_out(disk, {paths.READY_ACKNOWLEDGED: "x"})
    made.report_start()
    made.report_failure()
    assert [seen[2]["errors"][0]["level"] for seen in plane.seen] == ["error"]


def test_a_refused_entry_is_not_sent_again(plane: Plane) -> None:
    plane.answers = [400]
    made = make(plane.url)
    made.report_failure()
    assert len(plane.seen) == 1


def test_an_absent_control_plane_ends_by_itself() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
    made = make(url)
    made.report_failure()
    assert made._last is not None and not made._last.is_alive()


def test_a_wrong_configuration_is_told_where_its_part_on_the_control_plane_is_right(plane: Plane) -> None:
    user = {
        "node_id": "node-7",
        "control_plane": {"url": plane.url, "token_file": "/etc/sammy/token"},
        "docker": {"source": "nonsense"},
    }
    for wrong in (user, {**user, "node_id": 7}):
        with pytest.raises(ConfigError):
            provision(wrong, FakeHost(), "i-1", None, 0.0)
    (seen,) = plane.seen
    assert seen[0] == "/api/nodes/node-7/errors"
    assert 'sammy.docker.source is "nonsense"' in seen[2]["errors"][0]["message"]


def test_the_incidents_id_is_a_ulid_that_sorts_by_time_and_differs_by_what_happened() -> None:
    first, later = incident_id(RUN, "failed"), incident_id("20261124T104647-1a2b3c4d", "failed")
    assert len(first) == 26 and set(first) <= set(ALPHABET) and first[0] <= "7"
    assert first < later and first != incident_id(RUN, "began") and first == incident_id(RUN, "failed")
