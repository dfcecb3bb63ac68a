# SPDX-License-Identifier: Apache-2.0
"""The transport's decisions, without a network: settings, which pool, what a failure asks for, dialling order."""

from __future__ import annotations

import errno
import itertools
import socket
import ssl
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import requests
import urllib3

from sammy_agent.transport import IDEMPOTENCY_HEADER, SocketProfile, TotalTimeout, TransportError, TransportSettings
from sammy_agent.transport.dial import Address, Resolver, attempt_schedule, connect, interleave
from sammy_agent.transport.errors import certificate_problem, describe
from sammy_agent.transport.request_context import Phase, classify_failure, make_context
from sammy_agent.transport.settings import BULK, PROMPT
from sammy_agent.transport.sockets import TcpInfo
from tests.transport_profiles import FAST

V4 = [Address(socket.AF_INET, (f"192.0.2.{number}", 443)) for number in (1, 2)]
V6 = [Address(socket.AF_INET6, (f"2001:db8::{number}", 443, 0, 0)) for number in (1, 2)]


class TestSettings:
    @pytest.mark.parametrize("profile", [PROMPT, BULK, FAST], ids=["prompt", "bulk", "fast"])
    def test_a_user_timeout_leaves_room_for_two_more_probes(self, profile: SocketProfile) -> None:
        assert profile.user_timeout > profile.keep_idle + 2 * profile.keep_interval
        assert profile.keep_count >= 3

    def test_one_without_room_is_refused(self) -> None:
        with pytest.raises(TransportError, match=r"must exceed .* = 4 s"):
            SocketProfile(user_timeout=4.0, keep_idle=2, keep_interval=1)

    def test_the_journals_figures_are_the_defaults(self) -> None:
        settings = TransportSettings()
        assert (settings.connect_seconds, settings.header_seconds, settings.idle_seconds) == (10, 30, 30)

    @pytest.mark.parametrize("name", ["connect_seconds", "total_seconds", "idle_seconds", "pool_size"])
    def test_nothing_may_be_zero(self, name: str) -> None:
        changed: dict[str, Any] = {name: 0}
        with pytest.raises(TransportError, match=name):
            replace(TransportSettings(), **changed)


def request(method: str = "POST", body: Any = b"x", **headers: str) -> requests.PreparedRequest:
    made = requests.Request(method, "http://h/", data=body).prepare()
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


class TestPlan:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
    def test_what_may_be_repeated_by_its_method(self, method: str) -> None:
        assert make_context(request(method), False, None, TransportSettings()).replayable

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    def test_what_may_be_repeated_by_its_key_only(self, method: str) -> None:
        settings = TransportSettings()
        assert not make_context(request(method), False, None, settings).replayable
        for name in (IDEMPOTENCY_HEADER, "Idempotency-Key", "idempotency-key"):
            assert make_context(request(method, **{name.replace("-", "_"): "k"}), False, None, settings).replayable

    def test_a_body_that_cannot_be_read_twice_is_never_repeated(self) -> None:
        assert not make_context(request("PUT", iter([b"x"])), False, None, TransportSettings()).replayable

    @pytest.mark.parametrize(
        ("body", "stream", "timeout", "bulk"),
        [
            (b"x" * 65536, False, None, False),
            (b"x" * 65537, False, None, True),
            (iter([b"x"]), False, None, True),
            (None, True, None, True),
            (None, False, (5, 60), True),
            (None, False, 5, False),
        ],
        ids=["small", "large", "unknown", "streamed", "patient", "impatient"],
    )
    def test_the_pool(self, body: Any, stream: bool, timeout: Any, bulk: bool) -> None:
        assert make_context(request("POST", body), stream, timeout, TransportSettings()).bulk is bulk

    @pytest.mark.parametrize(
        ("timeout", "expected"),
        [
            (None, (10, 30, 60)),
            (5, (5, 5, 60)),
            ((3, None), (3, 30, 60)),
            ((None, 90), (10, 90, 1800)),
            (urllib3.Timeout(total=7), (10, 30, 7)),
            (urllib3.Timeout(connect=2, read=4), (2, 4, 60)),
        ],
        ids=["none", "number", "pair", "long", "total", "urllib3"],
    )
    def test_the_times(self, timeout: Any, expected: tuple[float, float, float]) -> None:
        before = time.monotonic()
        context = make_context(request(), False, timeout, TransportSettings())
        assert (context.connect_seconds, context.header_seconds) == expected[:2]
        assert context.until - before == pytest.approx(expected[2], abs=1)

    @pytest.mark.parametrize(
        ("timeout", "words"),
        [
            ((3, 4, 5), r"\(connect, read\)"),
            ((3,), r"\(connect, read\)"),
            ("foo", "must be an int, float or None"),
            ((3, "foo"), "must be an int, float or None"),
            (True, "boolean"),
            (0, "less than or equal to 0"),
        ],
        ids=repr,
    )
    def test_what_requests_refuses_is_refused(self, timeout: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            make_context(request(), False, timeout, TransportSettings())


class TestJudge:
    """remount?, replay?"""

    @pytest.mark.parametrize(
        ("error", "phase", "verdict"),
        [
            (requests.ConnectionError(ConnectionResetError()), Phase.SENT, (True, True)),
            (requests.ConnectionError(ConnectionAbortedError()), Phase.SENT, (True, True)),
            (requests.exceptions.ChunkedEncodingError(), Phase.SENT, (True, True)),
            (requests.exceptions.SSLError(ssl.SSLEOFError()), Phase.SENT, (True, True)),
            (requests.exceptions.ReadTimeout(TimeoutError()), Phase.SENT, (False, False)),
            (requests.exceptions.ConnectTimeout(), Phase.WAITING, (False, False)),
            (requests.ConnectionError(ConnectionRefusedError()), Phase.WAITING, (False, False)),
            (requests.ConnectionError(ConnectionResetError()), Phase.CONNECTING, (False, False)),
            (requests.exceptions.SSLError(ssl.SSLCertVerificationError()), Phase.CONNECTING, (False, False)),
            (requests.exceptions.ContentDecodingError(), Phase.SENT, (False, False)),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_what_a_failure_asks_for(self, error: Exception, phase: Phase, verdict: tuple[bool, bool]) -> None:
        context = make_context(request("GET"), False, None, TransportSettings())
        context.phase = phase
        assert tuple(classify_failure(error, context)) == verdict

    def test_without_a_key_it_remounts_and_does_not_replay(self) -> None:
        context = make_context(request("POST"), False, None, TransportSettings())
        context.phase = Phase.SENT
        assert tuple(classify_failure(requests.ConnectionError(ConnectionResetError()), context)) == (True, False)

    def test_nothing_is_replayed_when_the_time_is_over(self) -> None:
        context = make_context(request("GET"), False, urllib3.Timeout(total=1e-9), TransportSettings())
        context.phase = Phase.SENT
        assert tuple(classify_failure(requests.ConnectionError(ConnectionResetError()), context)) == (False, False)


class TestWords:
    def test_a_wrong_clock_is_named(self) -> None:
        error = ssl.SSLCertVerificationError("x")
        error.verify_code, error.verify_message = 9, "certificate is not yet valid"
        assert "clock is wrong" in str(certificate_problem(requests.exceptions.SSLError(error)))

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (requests.ConnectionError(socket.gaierror(-2, "Name or service not known")), "could not be looked up"),
            (requests.exceptions.ConnectTimeout(), "nothing answered at the address"),
            (requests.ConnectionError(OSError(errno.ENETUNREACH, "Network is unreachable")), "network is unreachable"),
            (TotalTimeout("the request took too long as a whole"), "too long as a whole"),
        ],
        ids=["name", "connect", "route", "total"],
    )
    def test_failures_in_plain_words(self, error: Exception, words: str) -> None:
        assert words in describe(error)


@pytest.mark.parametrize(
    ("info", "silent"),
    [
        ({}, False),
        ({"retransmits": 2, "last_ack": 9.0}, False),
        ({"retransmits": 3, "last_ack": 0.31}, True),
        ({"probes": 3, "last_ack": 5.0}, True),
        ({"probes": 1, "last_ack": 60.0}, False),
        ({"retransmits": 3, "last_ack": 1.0, "rtt": 0.4, "rttvar": 0.1}, False),
    ],
    ids=[
        "nothing unacknowledged",
        "a loss or two",
        "silence",
        "dead while waiting",
        "one probe after a minute",
        "a slow path",
    ],
)
def test_when_silence_is_proven(info: dict[str, Any], silent: bool) -> None:
    zero: dict[str, Any] = {
        "state": 1,
        "retransmits": 0,
        "probes": 0,
        "unacknowledged": 0,
        "last_ack": 0.0,
        "rtt": 0.001,
        "rttvar": 0.0005,
    }
    assert TcpInfo(**{**zero, **info}).is_unresponsive is silent


class TestDial:
    def test_families_take_turns(self) -> None:
        assert interleave([*V6, *V4]) == [V6[0], V4[0], V6[1], V4[1]]
        assert interleave(V4) == V4
        assert interleave([]) == []

    def test_the_second_address_is_tried_after_a_quarter_second_and_all_again_each_second(self) -> None:
        times = list(itertools.islice(attempt_schedule([V6[0], V4[0]], 1.0), 6))
        assert [(round(at, 2), address.family) for at, address in times] == [
            (0.0, socket.AF_INET6),
            (0.25, socket.AF_INET),
            (1.0, socket.AF_INET6),
            (1.25, socket.AF_INET),
            (2.0, socket.AF_INET6),
            (2.25, socket.AF_INET),
        ]

    def test_a_refused_address_leaves_the_field_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as gone:
            good, refused = listener.getsockname(), gone.getsockname()
            gone.close()
            addresses = [Address(socket.AF_INET, refused), Address(socket.AF_INET, good)]
            start = time.monotonic()
            with connect(addresses, start + 10, 1.0) as connected:
                assert connected.getpeername() == good
            assert time.monotonic() - start < 0.24

    def test_no_address_is_an_error(self) -> None:
        with pytest.raises(OSError, match="no address"):
            connect([], time.monotonic() + 1, 1.0)


class TestResolver:
    def test_addresses_need_no_look_up(self) -> None:
        def forbidden(*_: object, **__: object) -> list[Any]:
            raise AssertionError("asked")

        resolver = Resolver(forbidden)
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            assert resolver.addresses(host, 80, time.monotonic() + 1) == [Address(family, (host, 80))]

    def test_a_dead_name_server_costs_half_a_second_once_the_name_is_known(self) -> None:
        release = threading.Event()
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
        held: list[bool] = []

        def lookup(*_: object, **__: object) -> list[Any]:
            if held:
                release.wait(30)
            held.append(True)
            return answer

        resolver = Resolver(lookup)
        first = resolver.addresses("h", 80, time.monotonic() + 10)
        start = time.monotonic()
        assert resolver.addresses("h", 80, start + 10) == first
        assert 0.4 < time.monotonic() - start < 5
        release.set()

    def test_an_unknown_name_waits_to_the_deadline(self) -> None:
        release = threading.Event()
        resolver = Resolver(lambda *_, **__: [None][: int(not release.wait(30))])
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            resolver.addresses("h", 80, start + 0.7)
        assert 0.6 < time.monotonic() - start < 5
        release.set()

    def test_a_name_that_does_not_exist_says_so(self) -> None:
        def lookup(*_: object, **__: object) -> list[Any]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        with pytest.raises(socket.gaierror):
            Resolver(lookup).addresses("h", 80, time.monotonic() + 5)
