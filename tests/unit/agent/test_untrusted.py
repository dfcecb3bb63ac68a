# SPDX-License-Identifier: Apache-2.0
"""The guarded reader of JSON: what is refused and in which words, and that nothing that is JSON is lost."""

from __future__ import annotations

import base64
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.base.untrusted import MAX_DEPTH, InvalidJSON, read_json, read_jwt, read_object

REFUSED = {
    "deep arrays": (b"[" * 50_000, "nested deeper"),
    "deep objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested deeper"),
    "one too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
    "deep behind closed ones": (b"[[],[],[],[]," * 40 + b"1" + b"]" * 40, "nested deeper"),
    "a text without end": (b"[" * 30 + b'"\\"' * 500_000, "not JSON"),
    "escapes without end": (b"[" * 40 + b"\\" * 1_000_001 + b'"' + b"\\" * 1_000_001, "nested deeper"),
    "many values": (b"[" + b"1," * 200_000 + b"1]", "more than 100000 values"),
    "many empty objects": (b"[" + b"{}," * 200_000 + b"1]", "more than 100000 values"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b"[-Infinity]", "-Infinity is not JSON"),
    "400 digits": (b'{"a": ' + b"9" * 400 + b"}", "more than 19 digits"),
    "5000 digits": (b"-" + b"9" * 5000, "more than 19 digits"),
    "out of range": (b"[1e999]", "out of range"),
    "lone surrogate": (b'["\\ud800"]', "half of a surrogate pair"),
    "lone surrogate in a key": (b'{"a": {"\\udfff": 1}}', "half of a surrogate pair"),
    "not UTF-8": (b'["\xff"]', "not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "nothing": (b"", "not JSON"),
    "half": (b'{"a": ', "not JSON"),
    "two": (b"{} {}", "not JSON"),
    "a page": (b"<html>", "not JSON"),
    "control character": (b'["\n"]', "not JSON"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_json_for_us_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(InvalidJSON, match=words) as caught:
        read_json(data)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("data", [b"[]", b"null", b'"a"', b"1"])
def test_an_object_is_asked_for(data: bytes) -> None:
    with pytest.raises(InvalidJSON, match="not an object"):
        read_object(data)
    assert read_object(b'\xef\xbb\xbf{"a": [1, 2.5, "\\ud83d\\ude00", null]}') == {"a": [1, 2.5, "\U0001f600", None]}


def test_words_for_people_are_repaired() -> None:
    assert read_json(b'{"m": ["bad \\ud800 thing", {"\\udfff": "\\u0000"}]}', repair=True) == {
        "m": ["bad \ufffd thing", {"\ufffd": "\0"}]
    }


def test_brackets_in_texts_are_not_counted() -> None:
    text = "[{" * 1000 + '"' + "\\"
    assert read_json(json.dumps({"a": text, "b": [text]}).encode()) == {"a": text, "b": [text]}


def test_a_refusal_costs_no_memory() -> None:
    data = b"[" + b"1," * 1_000_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidJSON):
            read_json(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


numbers = st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)


def jwt_of(header: bytes, claims: bytes = b"{}") -> str:
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, claims, b"s"))


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (jwt_of(b"[" * 500), "nested deeper"),
        (jwt_of(b"{}", b"[" * 5000), "more than 1000 values"),
        (jwt_of(b'{"alg":"RS256","crit":["x"],"x":1}'), "crit"),
        (jwt_of(b"[]"), "not an object"),
        (jwt_of(b'{"a":NaN}'), "NaN"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        ("\u00e4.b.c", "base64url"),
        ("e30.!!!.c", "base64url"),
        ("", "three parts"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_a_token_that_a_library_should_not_see(token: str, words: str) -> None:
    with pytest.raises(InvalidJSON, match=words):
        read_jwt(token)


def test_a_token_is_read_without_being_believed() -> None:
    assert read_jwt(jwt_of(b'{"alg":"none"}', b'{"sub":"n1","exp":1}')) == ({"alg": "none"}, {"sub": "n1", "exp": 1})


values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(values)
def test_all_that_is_json_comes_back(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\u0d8 1eN-', max_size=200).map(str.encode))
def test_no_bytes_are_a_bug(data: bytes) -> None:
    try:
        found = read_json(data)
    except InvalidJSON:
        return
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
