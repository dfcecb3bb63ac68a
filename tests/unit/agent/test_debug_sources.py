# SPDX-License-Identifier: Apache-2.0
"""Where a member's bytes come from: the end of what is there, in the order in which people read."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.diagnostics.debug_package.members import Command
from sammy_agent.diagnostics.debug_package.sources import MemberSource, _HeadBuffer, _TailBuffer, sources

ENTRY = st.tuples(st.integers(0, 10**6), st.lists(st.sampled_from(["more", "x" * 30]), max_size=3)).map(
    lambda given: "".join([f"Nov 24 {given[0]}\n", *(f"    {line}\n" for line in given[1])])
)


def read(source: MemberSource) -> str:
    return b"".join(source.read()).decode()


def fed(end: _TailBuffer, text: str, sizes: Iterable[int]) -> _TailBuffer:
    data, at = text.encode(), 0
    while at < len(data):
        for size in sizes:
            if at < len(data) and not end.add(data[at : at + size]):
                return end
            at += size
    return end


@given(entries=st.lists(ENTRY, max_size=30), sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_what_comes_newest_first_is_given_out_oldest_first(entries: list[str], sizes: list[int]) -> None:
    end = fed(_HeadBuffer(1_000_000), "".join(entries), sizes)
    assert b"".join(end.take()).decode() == "".join(reversed(entries))
    assert not end.notes()


@given(
    entries=st.lists(ENTRY, min_size=5, max_size=30),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    limit=st.integers(40, 200),
)
def test_of_more_than_the_limit_the_newest_stay(entries: list[str], sizes: list[int], limit: int) -> None:
    end = fed(_HeadBuffer(limit), "".join(entries), sizes)
    full = end.full
    text = b"".join(end.take()).decode()
    whole = "".join(reversed(entries))
    assert len(text) <= limit
    assert full is (len(whole) >= limit) and bool(end.notes()) is full
    if text:  # the last line that fits may be of an entry of several
        assert text.startswith("Nov 24") and (full or text == whole)
        assert text.splitlines()[-1] in entries[0].splitlines() or len(entries[0]) > limit


@given(lines=st.lists(st.text("abc ", max_size=20), max_size=50), limit=st.integers(10, 300))
def test_of_what_a_program_says_the_end_stays_from_a_lines_beginning(lines: list[str], limit: int) -> None:
    text = "".join(f"{line}\n" for line in lines)
    end = fed(_TailBuffer(limit), text, [7, 64])
    kept = b"".join(end.take()).decode()
    assert text.endswith(kept) and len(kept) <= limit
    assert (kept == text) is (not end.notes())
    if kept != text and kept:
        assert text[: -len(kept)].endswith("\n") or "\n" not in kept[:-1]


def test_a_program_that_said_enough_is_ended_without_complaint() -> None:
    command = Command("x", ("sh", "-c", "seq 100000; sleep 600"), 10_000, newest_first=True)
    (source,) = sources(command, Paths(""), 60.0)
    assert read(source).splitlines()[-1] == "1"
    assert source.notes == ["older entries are left out"]
