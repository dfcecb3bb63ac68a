# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.base.wire.limits import MAX_CONTENT_UTF16_UNITS
from sammy_agent.control_plane import workspace_schema
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.outbox.channels import CHANNELS, MESSAGES, SEQUENCE_BYTES, QueuedRow, batch
from sammy_agent.daemon.outbox.retry_policy import (
    Classification,
    LaneState,
    ResponseInfo,
    RetryPolicy,
    classify,
    decide,
)
from sammy_agent.daemon.reporters.messages import (
    Message,
    MessageInvalid,
    replace_lone_surrogates,
    rows,
    split_by_limits,
)

POLICY = RetryPolicy(confirmations=3)
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=400)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("response", "classification"),
    [
        (ResponseInfo(None), Classification.RETRY),
        (ResponseInfo(200, accepted=True), Classification.DELIVERED),
        (ResponseInfo(200), Classification.RETRY),  # a portal
        (ResponseInfo(302), Classification.RETRY),
        (ResponseInfo(400), Classification.REFUSED),
        (ResponseInfo(401), Classification.HOLD),
        (ResponseInfo(403), Classification.HOLD),
        (ResponseInfo(404), Classification.HOLD),
        (ResponseInfo(500), Classification.RETRY),
        (ResponseInfo(500, token_expired=True), Classification.HOLD),
        (ResponseInfo(413), Classification.REFUSED),
        (ResponseInfo(408), Classification.RETRY),
        (ResponseInfo(409, error="CONFLICT"), Classification.RETRY),
        (ResponseInfo(409, error="SESSION_MESSAGE_LIMIT_EXCEEDED", remaining=0), Classification.FULL),
        (ResponseInfo(409, error="SESSION_MESSAGE_LIMIT_EXCEEDED", remaining=3), Classification.REFUSED),
        (ResponseInfo(429), Classification.RETRY),
        (ResponseInfo(503), Classification.RETRY),
    ],
)
def test_the_verdict_on_an_answer(response: ResponseInfo, classification: Classification) -> None:
    assert classify(response) is classification


def test_a_door_that_a_control_plane_need_not_have() -> None:
    unknown = ResponseInfo(401, message="Authentication required")
    assert classify(unknown, optional=True) is Classification.UNSUPPORTED and classify(unknown) is Classification.HOLD
    assert classify(ResponseInfo(401, message="Invalid callback token"), optional=True) is Classification.HOLD
    assert decide(LaneState(), Classification.UNSUPPORTED, 1, unknown, POLICY).at_least == POLICY.unsupported


@pytest.mark.parametrize("classification", [Classification.RETRY, Classification.HOLD])
def test_trouble_keeps_everything_and_is_never_given_up(classification: Classification) -> None:
    state = LaneState(suspect_rows=8, refusals=2)
    for failure in range(2000):
        action = decide(state, classification, 5, ResponseInfo(500), POLICY)
        assert (action.delivered, action.dead_letters) == (0, 0)
        assert (
            action.backoff_limit == min(POLICY.longest, POLICY.first * 2 ** min(failure, 9)) and action.at_least == 0.0
        )
        state = action.state
    assert (state.suspect_rows, state.refusals) == (8, 2)
    assert decide(state, classification, 5, ResponseInfo(429, retry_after=90.0), POLICY).at_least == 90.0


@given(st.lists(st.booleans(), max_size=120), st.integers(1, 100))
def test_bisecting_sets_aside_the_bad_rows_alone_and_keeps_the_order(bad: list[bool], limit: int) -> None:
    """A server that refuses a batch for one bad row; the lane must end empty, and soon."""
    waiting, delivered, aside, requests = list(enumerate(bad)), [], [], 0
    state = LaneState()
    while waiting:
        head = waiting[: state.batch_limit(limit)]
        refused = any(is_bad for _, is_bad in head)
        response = ResponseInfo(400) if refused else ResponseInfo(200, accepted=True)
        action = decide(state, classify(response), len(head), response, POLICY)
        delivered += waiting[: action.delivered]
        aside += waiting[: action.dead_letters]
        waiting, state = waiting[action.delivered + action.dead_letters :], action.state
        requests += 1
        assert requests <= len(bad) + sum(bad) * (2 * 8 + POLICY.confirmations)
    assert [number for number, is_bad in enumerate(bad) if is_bad] == [number for number, _ in aside]
    assert [number for number, is_bad in enumerate(bad) if not is_bad] == [number for number, _ in delivered]


def test_a_row_is_found_among_a_hundred_in_a_few_requests() -> None:
    state, sent = LaneState(), []
    while state.refusals == 0:
        count = state.batch_limit(100)
        sent.append(count)
        state = decide(state, Classification.REFUSED, count, ResponseInfo(400), POLICY).state
    assert sent == [100, 50, 25, 12, 6, 3, 1]


def test_where_row_after_row_is_refused_each_is_asked_over_a_longer_time() -> None:
    """A workspace that restarts answers 400 to everything; it must not cost its messages at full speed."""
    state, pauses = LaneState(), []
    for _ in range(POLICY.confirmations * 10):
        action = decide(state, Classification.REFUSED, 1, ResponseInfo(400), POLICY)
        state = action.state
        pauses.append(action.backoff_limit)
    assert state.consecutive_rejections == 10 and sum(pauses[-3:]) > 50 * sum(pauses[:3])
    assert decide(state, Classification.DELIVERED, 1, ResponseInfo(200, accepted=True), POLICY).state == LaneState()


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.sampled_from("ab")), min_size=1, max_size=200),
    st.integers(1, 100),
    st.sampled_from(sorted(CHANNELS)),
)
def test_a_batch_is_a_head_within_the_servers_limits(sizes: list[tuple[int, str]], most: int, name: str) -> None:
    channel = CHANNELS[name]
    waiting = [
        QueuedRow(2**62 + number, str(number), json.dumps({"x": "y" * size}), size + 9 + channel.row_overhead, group)
        for number, (size, group) in enumerate(sizes)
    ]
    head = batch(iter(waiting), channel, min(most, channel.most_rows))
    assert head == waiting[: len(head)] and 1 <= len(head) <= most and len({row.group for row in head}) == 1
    body = channel.encode(head)
    assert json.loads(body) and (len(head) == 1 or len(body) <= channel.most_bytes)
    if len(head) < min(most, channel.most_rows, len(waiting)):  # as long as it may be
        after = waiting[len(head)]
        longer = len(channel.encode([*head, after]))
        assert after.group != head[0].group or longer > channel.most_bytes - (SEQUENCE_BYTES + 1) * (len(head) + 1)


@given(TEXTS, st.integers(2, 50), st.integers(12, 60))
def test_a_text_is_split_between_characters_and_nothing_is_lost(text: str, most: int, room: int) -> None:
    pieces = split_by_limits(text, most, room)
    assert "".join(pieces) == text
    for piece in pieces:
        assert units(piece) <= most
        assert len(json.dumps(piece, ensure_ascii=False).encode()) - 2 <= room
    for piece, after in itertools.pairwise(pieces):  # greedy: not one more character fits
        longer = piece + after[0]
        assert units(longer) > most or len(json.dumps(longer, ensure_ascii=False).encode()) - 2 > room


@pytest.mark.parametrize("character", ["a", "ä", "𝄞", "\x01", '"', "\ud834", "\n"])
@pytest.mark.parametrize(
    "length",
    [
        1,
        MAX_CONTENT_UTF16_UNITS // 2,
        MAX_CONTENT_UTF16_UNITS,
        MAX_CONTENT_UTF16_UNITS + 1,
        5 * MAX_CONTENT_UTF16_UNITS,
    ],
)
def test_any_message_becomes_rows_that_the_wire_takes(character: str, length: int) -> None:
    message = Message("m", "s", "tool", character * length, "2026-01-01T00:00:00Z", json.dumps({"k": "v" * 500_000}))
    made = rows(message)
    got = ""
    for number, row in enumerate(made):
        body = MESSAGES.encode([QueuedRow(2**62, row.id, row.body, 0, row.group)])
        (entry,) = workspace_schema.parse_messages(body)  # the control plane's own rules
        assert entry["messageId"] == ("m" if number == 0 else f"m~{number + 1}")
        assert ("toolMetadata" in entry) == (number == 0)
        got += entry["content"]
    assert got == replace_lone_surrogates(message.content)


def test_what_is_far_too_long_is_trimmed_with_a_mark() -> None:
    made = rows(Message("m", "s", "tool", "x" * (MAX_CONTENT_UTF16_UNITS * 25), "2026-01-01T00:00:00Z"))
    assert len(made) == 21
    assert json.loads(made[-1].body)["content"] == f"[{MAX_CONTENT_UTF16_UNITS * 5} more characters were left out]"


@pytest.mark.parametrize("wrong", [{"role": "robot"}, {"content": ""}, {"id": ""}, {"session": ""}, {"timestamp": ""}])
def test_what_no_control_plane_takes_is_the_callers_bug(wrong: dict[str, str]) -> None:
    given_ = {"id": "m", "session": "s", "role": "user", "content": "x", "timestamp": "t", **wrong}
    with pytest.raises(MessageInvalid):
        rows(Message(**given_))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        ("100000", 300.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:05 GMT", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert Response(503, headers={} if value is None else {"Retry-After": value}).retry_after(10.0) == seconds
