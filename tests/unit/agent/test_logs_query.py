# SPDX-License-Identifier: Apache-2.0
"""The question put to the logs: what it means, and what is said of one that means nothing."""

from __future__ import annotations

import argparse
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.base.runtime import timespec
from sammy_agent.base.runtime.clock import Timestamp
from sammy_agent.cli.arguments import add_parsers, join_negative_values
from sammy_agent.cli.logs import command_for
from sammy_agent.diagnostics.logs.query import PARAMETERS, SOURCES, Query, QueryInvalid, parse

NOW = Timestamp(1_795_574_684_500_000, 60_000_000)


def test_moments_are_those_of_every_verb_and_what_is_none_is_refused_with_what_is() -> None:
    for text in ("-5m", "yesterday", "2026-11-24", "2026-11-24 10:46:49", "2026-11-24T10:46:49.123456789Z"):
        assert parse({"since": text}, now=NOW).since == timespec.parse(text, NOW).wall
        assert parse({"until": text}, now=NOW).until == timespec.parse(text, NOW).wall
    assert parse({"since": "2026-11-24T10:46:49.5Z"}).since == 1_795_517_209_500_000
    for text in ("soon", "-5", "-5w", "2026-02-30", "2026-11-24 25:00:00", "--1s"):
        with pytest.raises(QueryInvalid) as caught:
            parse({"since": text}, now=NOW)
        assert caught.value.problems == [f"since is {text!r}, but must be {timespec.TIMES}"]


def test_every_mistake_is_told_at_once_with_its_value_and_what_is_allowed() -> None:
    wrong = {
        "source": "kernel", "level": "loud", "container": "a/b", "since": "soon", "until": "later",
        "search": "x" * 1001, "limit": "1001", "cursor": "a b",
    }  # fmt: skip
    with pytest.raises(QueryInvalid) as caught:
        parse(wrong)
    assert [problem.split()[0] for problem in caught.value.problems] == list(wrong)
    text = str(caught.value)
    assert "'kernel', but must be one of all, agent, sammy, systemd, cloud-init, docker" in text
    assert "'loud', but must be one of debug, info, warn, error" in text
    assert "'1001', but must be a number from 1 to 1000" in text
    assert "x" * 100 not in text


def test_what_does_not_go_together_is_told() -> None:
    with pytest.raises(QueryInvalid, match="container goes with source docker or all, not with agent"):
        parse({"container": "web", "source": "agent"})
    with pytest.raises(QueryInvalid, match="since is later than until"):
        parse({"since": "-1h", "until": "-2h"})


def test_limits_are_those_of_the_wire_and_empty_ones_are_absent() -> None:
    assert (
        parse({}) == parse(dict.fromkeys(("source", "level", "since", "limit", "cursor", "container"), "")) == Query()
    )
    assert Query().limit == 200
    for text in ("1", "200", "1000"):
        assert parse({"limit": text}).limit == int(text)
    for text in ("0", "-1", "1e3", "\u0661", "99999"):
        with pytest.raises(QueryInvalid):
            parse({"limit": text})
    assert parse({"search": "x" * 1000, "container": "c" * 255, "cursor": "AAAA" * 128}).search
    for name, text in (("container", "c" * 256), ("cursor", "AAAA" * 129), ("cursor", "A")):
        with pytest.raises(QueryInvalid):
            parse({name: text})


@given(st.dictionaries(st.sampled_from(PARAMETERS), st.text()))
def test_whatever_is_asked_is_understood_or_refused_in_words(asked: dict[str, str]) -> None:
    try:
        parse(asked, now=NOW)
    except QueryInvalid as error:
        assert error.problems


def test_a_container_is_named_by_its_name_a_pattern_or_its_id() -> None:
    identity = "0123456789ab" + "c" * 52
    for pattern, fits in (("web-1", True), ("web*", True), ("web-?", True), ("web", False), ("WEB-1", False),
                          (identity[:12], True), (identity, True), (identity[:11], False)):  # fmt: skip
        assert Query(container=pattern).includes_container("web-1", identity) is fits, pattern
    assert [source for source in SOURCES if Query(container="x").includes(source)] == ["docker"]


@given(st.text(), st.text(min_size=1))
def test_searching_takes_letters_large_and_small_alike(before: str, wanted: str) -> None:
    assert Query(search=wanted).matches(before + wanted)
    assert Query(search="Straße LEVEL").matches("die STRASSE Level 3")
    assert not Query(search="a.c").matches("abc")


# argparse before Python 3.13 loses a value of two dashes and nothing else
SEARCHES = st.text(string.printable).filter(lambda text: text != "--")


@given(st.sampled_from(["-5m", "-2h", "yesterday"]), SEARCHES, st.booleans())
def test_the_options_survive_from_one_command_to_the_other(since: str, search: str, follow: bool) -> None:
    parser = argparse.ArgumentParser()
    for verb in add_parsers(parser.add_subparsers(dest="verb")):
        verb.add_argument("--root", default="")
    given_ = ["logs", "--since", since, f"--search={search}", "-n", "7", *(["-f"] if follow else [])]
    first = parser.parse_args(join_negative_values(given_))
    assert (first.since, first.search, first.limit, first.follow) == (since, search, "7", follow)
    again = parser.parse_args(command_for(first, "c")[1:])
    assert vars(again) == {**vars(first), "cursor": "c"}
