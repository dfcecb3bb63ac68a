# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.control_plane import workspace_schema
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.outbox.channels import CHANNELS, MESSAGES, SEQUENCE_BYTES, Row, take
from sammy_agent.daemon.outbox.retry_policy import Pace, Progress, ResponseInfo, Verdict, decide, drawn, judge
from sammy_agent.daemon.reporters.messages import (
    MAX_UTF16_UNITS,
    Message,
    MessageInvalid,
    replace_lone_surrogates,
    rows,
    split_by_limits,
)

PACE = Pace(confirmations=3)
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=400)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (ResponseInfo(None), Verdict.RETRY),
        (ResponseInfo(200, accepted=True), Verdict.DELIVERED),
        (ResponseInfo(200), Verdict.RETRY),  # a portal
        (ResponseInfo(302), Verdict.RETRY),
        (ResponseInfo(400), Verdict.REFUSED),
        (ResponseInfo(401), Verdict.HOLD),
        (ResponseInfo(403), Verdict.HOLD),
        (ResponseInfo(404), Verdict.HOLD),
        (ResponseInfo(500), Verdict.RETRY),
        (ResponseInfo(500, token_expired=True), Verdict.HOLD),
        (ResponseInfo(413), Verdict.REFUSED),
        (ResponseInfo(408), Verdict.RETRY),
        (ResponseInfo(409, error="CONFLICT"), Verdict.RETRY),
        (ResponseInfo(409, error="SESSION_MESSAGE_LIMIT_EXCEEDED", remaining=0), Verdict.FULL),
        (ResponseInfo(409, error="SESSION_MESSAGE_LIMIT_EXCEEDED", remaining=3), Verdict.REFUSED),
        (ResponseInfo(429), Verdict.RETRY),
        (ResponseInfo(503), Verdict.RETRY),
    ],
)
def test_the_verdict_on_an_answer(reply: ResponseInfo, verdict: Verdict) -> None:
    assert judge(reply) is verdict


def test_a_door_that_a_control_plane_need_not_have() -> None:
    unknown = ResponseInfo(401, message="Authentication required")
    assert judge(unknown, optional=True) is Verdict.UNSUPPORTED and judge(unknown) is Verdict.HOLD
    assert judge(ResponseInfo(401, message="Invalid callback token"), optional=True) is Verdict.HOLD
    assert drawn(decide(Progress(), Verdict.UNSUPPORTED, 1, unknown, PACE), 0.0) == PACE.unsupported


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.HOLD])
def test_trouble_keeps_everything_and_is_never_given_up(verdict: Verdict) -> None:
    progress = Progress(suspects=8, refusals=2)
    for failure in range(2000):
        step = decide(progress, verdict, 5, ResponseInfo(500), PACE)
        assert (step.delivered, step.set_aside) == (0, 0)
        assert drawn(step, 1.0) == min(PACE.longest, PACE.first * 2 ** min(failure, 9)) and drawn(step, 0.0) == 0.0
        progress = step.progress
    assert (progress.suspects, progress.refusals) == (8, 2)
    assert drawn(decide(progress, verdict, 5, ResponseInfo(429, retry_after=90.0), PACE), 0.0) == 90.0


@given(st.lists(st.booleans(), max_size=120), st.integers(1, 100))
def test_bisecting_sets_aside_the_bad_rows_alone_and_keeps_the_order(bad: list[bool], limit: int) -> None:
    """A server that refuses a batch for one bad row; the lane must end empty, and soon."""
    waiting, delivered, aside, requests = list(enumerate(bad)), [], [], 0
    progress = Progress()
    while waiting:
        batch = waiting[: progress.most(limit)]
        refused = any(is_bad for _, is_bad in batch)
        reply = ResponseInfo(400) if refused else ResponseInfo(200, accepted=True)
        step = decide(progress, judge(reply), len(batch), reply, PACE)
        delivered += waiting[: step.delivered]
        aside += waiting[: step.set_aside]
        waiting, progress = waiting[step.delivered + step.set_aside :], step.progress
        requests += 1
        assert requests <= len(bad) + sum(bad) * (2 * 8 + PACE.confirmations)
    assert [number for number, is_bad in enumerate(bad) if is_bad] == [number for number, _ in aside]
    assert [number for number, is_bad in enumerate(bad) if not is_bad] == [number for number, _ in delivered]


def test_a_row_is_found_among_a_hundred_in_a_few_requests() -> None:
    progress, sent = Progress(), []
    while progress.refusals == 0:
        count = progress.most(100)
        sent.append(count)
        progress = decide(progress, Verdict.REFUSED, count, ResponseInfo(400), PACE).progress
    assert sent == [100, 50, 25, 12, 6, 3, 1]


def test_where_row_after_row_is_refused_each_is_asked_over_a_longer_time() -> None:
    """A workspace that restarts answers 400 to everything; it must not cost its messages at full speed."""
    progress, pauses = Progress(), []
    for _ in range(PACE.confirmations * 10):
        step = decide(progress, Verdict.REFUSED, 1, ResponseInfo(400), PACE)
        progress = step.progress
        pauses.append(step.pause)
    assert progress.streak == 10 and sum(pauses[-3:]) > 50 * sum(pauses[:3])
    assert decide(progress, Verdict.DELIVERED, 1, ResponseInfo(200, accepted=True), PACE).progress == Progress()


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.sampled_from("ab")), min_size=1, max_size=200),
    st.integers(1, 100),
    st.sampled_from(sorted(CHANNELS)),
)
def test_a_batch_is_a_head_within_the_servers_limits(sizes: list[tuple[int, str]], most: int, name: str) -> None:
    channel = CHANNELS[name]
    waiting = [
        Row(2**62 + number, str(number), json.dumps({"x": "y" * size}), size + 9 + channel.row_overhead, group)
        for number, (size, group) in enumerate(sizes)
    ]
    batch = take(iter(waiting), channel, min(most, channel.most_rows))
    assert batch == waiting[: len(batch)] and 1 <= len(batch) <= most and len({row.group for row in batch}) == 1
    body = channel.encode(batch)
    assert json.loads(body) and (len(batch) == 1 or len(body) <= channel.most_bytes)
    if len(batch) < min(most, channel.most_rows, len(waiting)):  # as long as it may be
        after = waiting[len(batch)]
        longer = len(channel.encode([*batch, after]))
        assert after.group != batch[0].group or longer > channel.most_bytes - (SEQUENCE_BYTES + 1) * (len(batch) + 1)


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
@pytest.mark.parametrize("length", [1, MAX_UTF16_UNITS // 2, MAX_UTF16_UNITS, MAX_UTF16_UNITS + 1, 5 * MAX_UTF16_UNITS])
def test_any_message_becomes_rows_that_the_wire_takes(character: str, length: int) -> None:
    message = Message("m", "s", "tool", character * length, "2026-01-01T00:00:00Z", json.dumps({"k": "v" * 500_000}))
    made = rows(message)
    got = ""
    for number, row in enumerate(made):
        body = MESSAGES.encode([Row(2**62, row.id, row.body, 0, row.group)])
        (entry,) = workspace_schema.message_entries(body)  # the control plane's own rules
        assert entry["messageId"] == ("m" if number == 0 else f"m~{number + 1}")
        assert ("toolMetadata" in entry) == (number == 0)
        got += entry["content"]
    assert got == replace_lone_surrogates(message.content)


def test_what_is_far_too_long_is_trimmed_with_a_mark() -> None:
    made = rows(Message("m", "s", "tool", "x" * (MAX_UTF16_UNITS * 25), "2026-01-01T00:00:00Z"))
    assert len(made) == 21
    assert json.loads(made[-1].body)["content"] == f"[{MAX_UTF16_UNITS * 5} more characters were left out]"


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
