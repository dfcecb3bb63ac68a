# SPDX-License-Identifier: Apache-2.0
"""Pages over several logs: every entry in exactly one of them, whatever the clocks did and whatever came meanwhile."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.diagnostics.logs.entry import Entry, Positioned, Tail
from sammy_agent.diagnostics.logs.merge import Page, decoded, pack, read, unpack
from sammy_agent.diagnostics.logs.query import CURSOR, Query, QueryInvalid


@dataclass
class Listed:
    """A source that is a list, oldest first; a time of None is something that does not answer the question."""

    tag: int
    times: list[int | None]
    notes: list[str] = field(default_factory=list)
    breaks_at: int = -1

    def end_position(self) -> bytes:
        return len(self.times).to_bytes(4, "big")

    def read_backwards(self, position: bytes | None, until: int | None) -> Iterator[Positioned]:
        end = len(self.times) if position is None else int.from_bytes(position, "big")
        for number in reversed(range(end)):
            if number == self.breaks_at:
                raise OSError(5, "it is damaged", "listed")
            time = self.times[number]
            entry = None
            if time is not None and (until is None or time <= until):
                entry = Entry(time, "info", "systemd", f"{self.tag}:{number}")
            yield Positioned(entry, (number + (entry is not None)).to_bytes(4, "big"))

    def tail(self, position: bytes) -> Tail:
        raise AssertionError("a page follows nothing")


def names(page: Page) -> list[str]:
    return [entry.message for entry in page.entries]


TIMES = st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=25)


@given(st.lists(TIMES, min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1), st.integers(0, 5), st.data())
def test_pages_hold_every_entry_once_in_its_sources_order(
    lists: list[list[int | None]], limits: list[int], patience: int, data: st.DataObject
) -> None:
    sources = [Listed(tag, list(times)) for tag, times in enumerate(lists, 1)]
    wanted = {
        f"{source.tag}:{number}" for source in sources for number, time in enumerate(source.times) if time is not None
    }
    found: list[str] = []
    cursor = b""
    for limit in itertools.islice(itertools.cycle(limits), 500):
        ticks = itertools.count()  # the time is up after so many looks at the clock
        page = read(sources, Query(limit=limit, cursor=cursor), seconds=patience, clock=ticks.__next__)
        assert len(page.entries) <= limit
        found += names(page)
        if not page.cursor:
            break
        assert CURSOR.fullmatch(page.cursor)
        cursor = decoded(page.cursor)
        newer = data.draw(st.sampled_from(sources))
        newer.times.append(data.draw(st.integers(0, 60)))  # comes after the first page: in none
    else:
        raise AssertionError("the pages do not end")
    assert sorted(found) == sorted(wanted)
    for source in sources:
        own = [int(name.split(":")[1]) for name in found if name.startswith(f"{source.tag}:")]
        assert own == sorted(own, reverse=True)


@given(st.lists(st.lists(st.integers(0, 30), max_size=20).map(sorted), min_size=1, max_size=4), st.integers(1, 9))
def test_where_the_clocks_are_right_all_pages_together_are_in_order_of_time(lists: list[list[int]], limit: int) -> None:
    sources = [Listed(tag, list(times)) for tag, times in enumerate(lists, 1)]
    entries: list[Entry] = []
    page = read(sources, Query(limit=limit))
    while True:
        entries += page.entries
        if not page.cursor:
            break
        assert page.entries
        page = read(sources, Query(limit=limit, cursor=decoded(page.cursor)))
    assert [entry.time for entry in entries] == sorted(itertools.chain(*lists), reverse=True)


def test_the_same_cursor_gives_the_same_page() -> None:
    sources = [Listed(1, [1, 3, 5, 7]), Listed(2, [2, 4, 6, 8])]
    first = read(sources, Query(limit=3))
    second = Query(limit=3, cursor=decoded(first.cursor))
    assert read(sources, second) == read(sources, second)
    assert [entry.time for entry in read(sources, second).entries] == [5, 4, 3]


def test_a_source_that_the_cursor_does_not_know_begins_at_its_time() -> None:
    first = read([Listed(1, [1, 3, 5, 7])], Query(limit=2))
    page = read([Listed(1, [1, 3, 5, 7]), Listed(2, [2, 4, 6, 8])], Query(cursor=decoded(first.cursor)))
    assert [entry.time for entry in page.entries] == [4, 3, 2, 1]


def test_a_source_that_breaks_is_said_and_the_others_go_on() -> None:
    sources = [Listed(1, [1, 3, 5, 7], breaks_at=1), Listed(2, [2, 4, 6, 8])]
    page = read(sources, Query())
    assert [entry.time for entry in page.entries] == [8, 7, 6, 5, 4, 2]
    assert page.notes == ["listed: it is damaged"]
    assert page.document()["notes"] == page.notes and page.document()["nextCursor"] is None


@given(st.dictionaries(st.integers(0, 255), st.binary(max_size=60), max_size=5), st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back_as_it_was(positions: dict[int, bytes], latest: int) -> None:
    cursor = pack(latest, positions)
    assert re.fullmatch("[A-Za-z0-9=;_-]*", cursor)
    assert unpack(decoded(cursor)) == (latest, positions)


@given(st.binary(min_size=1, max_size=80))
def test_whatever_else_is_given_as_a_cursor_is_refused_in_words_or_answers(raw: bytes) -> None:
    try:
        read([Listed(1, [1, 2, 3])], replace(Query(), cursor=raw))
    except QueryInvalid as error:
        assert "cursor" in str(error)


def test_the_largest_cursor_fits_the_wire() -> None:
    assert len(pack(2**63 - 1, {1: bytes(64), 2: bytes(16), 3: bytes(16), 4: bytes(17)})) <= 512


def test_an_entry_is_on_the_wire_as_the_control_plane_knows_it() -> None:
    entry = Entry(1_795_574_684_000_042, "warn", "docker", "a\nb", {"container": "web"})
    assert entry.document() == {
        "timestamp": "2026-11-25T02:44:44.000042Z", "level": "warn", "source": "docker", "message": "a\nb",
        "metadata": {"container": "web"},
    }  # fmt: skip
    assert "metadata" not in Entry(0, "info", "agent", "").document()
    with pytest.raises(QueryInvalid, match="ask without it"):
        read([], Query(cursor=b"\x09nothing"))
