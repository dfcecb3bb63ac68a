# SPDX-License-Identifier: Apache-2.0
"""What the reporters make of the programs that they run: the firewall after ready, the certificate's helper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cc_sammy.contract.run_record import Outcome
from sammy_agent.base.events import kinds
from sammy_agent.base.runtime import process
from sammy_agent.base.runtime.fake_process import FakePrograms
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.process import Completed
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.fake_client import FakeRequest, answer, fake_reporter_client
from sammy_agent.daemon.firewall_watch import watchdog
from sammy_agent.daemon.reporters import ready
from sammy_agent.daemon.reporters.certificate import CHECK_INTERVAL, UNSUPPORTED_RETRY, CertificateRenewer
from sammy_agent.daemon.reporters.ready import ReadyReporter
from sammy_agent.node.provisioning import ProvisioningState
from tests.unit.agent.test_reporters import record

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(str(tmp_path))


@pytest.fixture
def programs() -> FakePrograms:
    return FakePrograms()


class Recorded:
    def __init__(self) -> None:
        self.kinds: list[kinds.Kind] = []

    def __call__(self, kind: kinds.Kind, message: str, **more: object) -> None:
        self.kinds.append(kind)


def ready_reporter(paths: Paths, programs: FakePrograms, events: Recorded) -> ReadyReporter:
    plane, _ = fake_reporter_client(lambda request: answer(200, {"status": "running"}))
    return ReadyReporter(plane, lambda: ProvisioningState(record(Outcome.READY)), paths, events, programs)


def test_a_node_that_is_ready_applies_its_firewall_once(paths: Paths, programs: FakePrograms) -> None:
    programs.answer("sammy", "firewall", "apply")
    events = Recorded()
    reporter = ready_reporter(paths, programs, events)
    while reporter.run_once() is not None:
        pass
    assert programs.calls == [ready.FIREWALL] and programs.deadlines == [ready.FIREWALL_DEADLINE]
    assert events.kinds == [kinds.READY_ACKNOWLEDGED, kinds.FIREWALL_APPLIED]
    snapshot = reporter.snapshot()
    assert (snapshot["firewall_applied"], snapshot["cause"]) == (True, None)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"status": 1, "stderr": "first\nnft: no such table\n"}, "nft: no such table"),
        ({"status": -15, "problem": "was not done within 120 s"}, "was not done within 120 s"),
        ({"status": None, "problem": "No such file or directory"}, "No such file or directory"),
    ],
)
def test_a_firewall_that_fails_is_tried_again_and_in_the_status(
    paths: Paths, programs: FakePrograms, result: Mapping[str, object], reason: str
) -> None:
    programs.answer("sammy", **result)  # type: ignore[arg-type]  # of the parametrisation
    events = Recorded()
    reporter = ready_reporter(paths, programs, events)
    for _ in range(20):
        reporter.run_once()
    assert len(programs.calls) == ready.FIREWALL_ATTEMPTS
    assert events.kinds.count(kinds.FIREWALL_FAILED) == ready.FIREWALL_ATTEMPTS
    assert reason in str(reporter.snapshot()["cause"]) and not reporter.snapshot()["firewall_applied"]


def renewer(
    paths: Paths, programs: FakePrograms, response: Response | None = None
) -> tuple[CertificateRenewer, list[FakeRequest]]:
    plane, fake = fake_reporter_client(lambda request: response or Response(200, CERTIFICATE.encode()))
    plane.contact.success("heartbeat")
    return CertificateRenewer(plane, paths, programs), fake.requests


def test_a_certificate_is_requested_and_installed(paths: Paths, programs: FakePrograms) -> None:
    programs.act(do=programs_answer)
    made, requests = renewer(paths, programs)
    installed: list[None] = []
    made.installed.connect(installed.append)
    assert made.run_once() == CHECK_INTERVAL
    assert [call[3] for call in programs.calls] == ["request", "install"]
    assert b"the request" in (requests[0].body or b"")
    assert programs.inputs == [b"", CERTIFICATE.encode()] and len(installed) == 1


def programs_answer(argv: tuple[str, ...], given: bytes) -> Completed:
    return Completed(argv, 0, b"the request" if "request" in argv else b"")


def test_a_helper_that_fails_is_a_problem_with_its_last_words(paths: Paths, programs: FakePrograms) -> None:
    programs.answer(stderr="Traceback\nOSError: disk full\n", status=1)
    made, requests = renewer(paths, programs)
    assert 0 < (made.run_once() or 0) < CHECK_INTERVAL and not requests
    assert "OSError: disk full" in str(made._plane.contact.snapshot())


def test_an_older_control_plane_is_asked_again_later(paths: Paths, programs: FakePrograms) -> None:
    programs.answer(stdout="the request")
    made, _ = renewer(paths, programs, answer(404))
    assert made.run_once() == UNSUPPORTED_RETRY


def test_the_watchdog_asks_the_firewall_in_words_and_takes_what_is_no_answer_for_an_error(
    monkeypatch: pytest.MonkeyPatch, programs: FakePrograms
) -> None:
    monkeypatch.setattr(process, "run", programs)
    programs.answer(stdout='{"ok": false, "error": "in words"}', status=1)
    assert watchdog.ask("repair") == {"ok": False, "error": "in words"}
    assert programs.calls[0][-2:] == ("repair", "--json")
    for result, error in (
        ({"status": 1, "stderr": "Traceback\nKeyError: 'x'\n"}, "KeyError: 'x'"),
        ({"stdout": "no json"}, "no answer"),
        ({"stdout": "[1]"}, "no answer"),
        ({"status": -15, "problem": "was not done within 60 s"}, "was not done within 60 s"),
    ):
        programs.answer(**result)
        assert watchdog.ask("repair") == {"ok": False, "error": error}
