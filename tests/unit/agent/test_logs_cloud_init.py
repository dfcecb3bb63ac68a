# SPDX-License-Identifier: Apache-2.0
"""cloud-init's files as logs: which lines are one entry, when they were, and what rotation does to reading them."""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sammy_agent.diagnostics.logs import merge
from sammy_agent.diagnostics.logs.cloud_init import LOG, OUTPUT, CloudInit
from sammy_agent.diagnostics.logs.cloud_init_parser import BLOCK, Grouper, anchor_of
from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.logs.query import Query, parse

LOG_TEXT = """\
2026-11-24 10:46:49,123 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local'
2026-11-24 10:46:50,000 - cc_sammy.py[WARNING]: a step is late
2026-11-24 10:46:51,500 - util.py[ERROR]: Running module sammy failed
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/cc_sammy/engine/provision.py", line 1, in handle
    run()

ValueError: no such thing
2026-11-24 10:46:52,000 - handlers.py[DEBUG]: finish: modules-final
2026-11-24 10:46:53,000 - log_util.py[DEPRECATED]: old key
"""
OUTPUT_TEXT = """\
Cloud-init v. 22.4.2 running 'init' at Tue, 24 Nov 2026 10:46:49 +0000. Up 3.10 seconds.
Reading package lists...

E: Unable to locate package nope
Cloud-init v. 22.4.2 running 'modules:final' at Tue, 24 Nov 2026 12:46:59 +0200. Up 13.10 seconds.
Traceback (most recent call last):
  File "<stdin>", line 1, in <module>
ZeroDivisionError: division by zero
after it
2026-11-24 10:47:01,250 - util.py[WARNING]: Failed to run
Cloud-init v. 22.4.2 finished at Tue, 24 Nov 2026 10:47:02 +0000. Datasource DataSourceNoCloud. Up 20 seconds
"""


def put(root: Path, path: str, text: str) -> Path:
    target = Path(f"{root}{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def log(root: Path, query: Query | None = None) -> CloudInit:
    return CloudInit(LOG, query or Query(), tag=2, line_based=False, root=str(root))


def output(root: Path, query: Query | None = None) -> CloudInit:
    return CloudInit(OUTPUT, query or Query(), tag=3, line_based=True, root=str(root))


def told(entries: list[Entry]) -> list[tuple[str, str, str]]:
    """Return seconds, level and the first words of each."""
    return [(entry.document()["timestamp"][17:23], entry.level, entry.message[:20]) for entry in entries]


def test_a_traceback_is_one_entry_with_its_lines_time_and_level(tmp_path: Path) -> None:
    put(tmp_path, LOG, LOG_TEXT)
    entries = merge.read([log(tmp_path)], Query()).entries[::-1]
    assert [(entry.level, entry.document()["timestamp"][11:23]) for entry in entries] == [
        ("debug", "10:46:49.123"), ("warn", "10:46:50.000"), ("error", "10:46:51.500"), ("debug", "10:46:52.000"),
        ("warn", "10:46:53.000"),
    ]  # fmt: skip
    assert entries[2].message.endswith("\n    run()\n\nValueError: no such thing")
    assert "\n".join(entry.message for entry in entries) + "\n" == LOG_TEXT
    assert entries[0].metadata == {"file": "cloud-init.log"}


def test_output_has_the_times_of_its_stages_and_a_traceback_is_one_entry(tmp_path: Path) -> None:
    put(tmp_path, OUTPUT, OUTPUT_TEXT)
    entries = merge.read([output(tmp_path)], Query()).entries[::-1]
    assert told(entries) == [
        ("49.000", "info", "Cloud-init v. 22.4.2"),
        ("49.000", "info", "Reading package list"),
        ("49.000", "error", "E: Unable to locate "),
        ("59.000", "info", "Cloud-init v. 22.4.2"),
        ("59.000", "error", "Traceback (most rece"),
        ("59.000", "info", "after it"),
        ("01.250", "warn", "2026-11-24 10:47:01,"),
        ("02.000", "info", "Cloud-init v. 22.4.2"),
    ]
    assert entries[4].message.endswith("ZeroDivisionError: division by zero")


def test_level_time_and_text_narrow_it(tmp_path: Path) -> None:
    put(tmp_path, LOG, LOG_TEXT)
    for asked, count in (({"level": "warn"}, 3), ({"level": "error"}, 1), ({"search": "no SUCH thing"}, 1),
                         ({"since": "2026-11-24T10:46:51Z"}, 3), ({"until": "2026-11-24T10:46:51Z"}, 2)):  # fmt: skip
        query = parse(asked)
        assert len(merge.read([log(tmp_path, query)], query).entries) == count, asked


def test_what_is_not_there_or_not_a_whole_line_is_no_entry(tmp_path: Path) -> None:
    assert merge.read([log(tmp_path)], Query()).entries == []
    for text in ("", "2026-11-24 10:46:49,123 - util.py[DEBUG]: begun"):
        put(tmp_path, LOG, text)
        assert merge.read([log(tmp_path)], Query()).entries == []
    put(tmp_path, LOG, LOG_TEXT + "2026-11-24 10:46:54,123 - util.py[DEBUG]: begun")
    assert merge.read([log(tmp_path)], Query()).entries[0].message.endswith("old key")
    assert anchor_of(b"2026-02-30 10:46:49,123 - util.py[DEBUG]: no such day") is None


def test_a_file_without_an_entry_in_megabytes_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    text = LOG_TEXT + "".join(f"line {number} of no time\n" for number in range(40_000)) + "x" * 3 * BLOCK + "\n"
    put(tmp_path, LOG, text)
    found = list(log(tmp_path).read_backwards(None, None))
    ends = [int.from_bytes(located.position[8:], "big") for located in found]
    assert ends[0] == len(text) and ends == sorted(set(ends), reverse=True)
    for located, end, start in zip(found, ends, [*ends[1:], 0], strict=True):
        assert located.entry is not None and len(located.entry.message) <= 17_000
        assert located.entry.message[:100] == text[start:end][: len(located.entry.message)][:100].rstrip("\n")
    assert 5 + len(text) // BLOCK <= len(ends) < 200


def test_entries_across_the_blocks_of_a_large_file_stay_whole(tmp_path: Path) -> None:
    texts = [entry_text(number, number % 7) for number in range(3000)]
    path = put(tmp_path, LOG, "".join(texts))
    assert path.stat().st_size > 3 * BLOCK
    found = [located.entry.message + "\n" for located in log(tmp_path).read_backwards(None, None) if located.entry]
    assert found == texts[::-1]


def test_a_file_that_logrotate_is_packing_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, LOG, entry_text(2, 0))
    older = put(tmp_path, LOG + ".1", entry_text(1, 0))
    Path(f"{older}.gz").write_bytes(gzip.compress(older.read_bytes()))
    Path(f"{tmp_path}{LOG}.2.gz").write_bytes(gzip.compress(older.read_bytes())[:-9])  # cut: it is not there yet
    assert len(merge.read([log(tmp_path)], Query()).entries) == 2


def rotate(path: Path) -> None:
    """Do as logrotate does with cloud-init's own configuration."""
    for number in reversed(range(1, 5)):
        older = Path(f"{path}.{number}.gz")
        if older.exists():
            older.rename(f"{path}.{number + 1}.gz")
    if path.exists():
        path.rename(f"{path}.1")
        Path(f"{path}.1.gz").write_bytes(gzip.compress(Path(f"{path}.1").read_bytes()))
        Path(f"{path}.1").unlink()
    path.write_text("")


def entry_text(number: int, more: int) -> str:
    second = f"2026-11-24 10:{number // 60:02d}:{number % 60:02d},000"
    return f"{second} - a.py[INFO]: number {number}\n" + "  more of it\n" * more


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.sets(st.integers(0, 20), max_size=4),
)
def test_pages_hold_every_entry_once_while_files_are_rotated_and_packed(
    entries: list[tuple[int, bool]], limits: list[int], rotations: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), LOG, "")
        rotated = 0
        for number, (more, then_rotate) in enumerate(entries):
            with path.open("a") as file:
                file.write(entry_text(number, more))
            if then_rotate and rotated < 3:
                rotate(path)
                rotated += 1
        found: list[str] = []
        cursor = b""
        for turn in range(100):
            page = merge.read([log(Path(folder))], Query(limit=limits[turn % len(limits)], cursor=cursor))
            found += [entry.message + "\n" for entry in page.entries]
            if not page.cursor:
                break
            cursor = merge.decoded(page.cursor)
            if turn in rotations and rotated < 4:
                rotate(path)
                rotated += 1
            with path.open("a") as file:
                file.write(entry_text(900 + turn, 1))  # newer than all pages
        assert found == [entry_text(number, more) for number, (more, _) in enumerate(entries)][::-1]


def test_a_position_in_a_file_that_is_gone_ends_the_pages(tmp_path: Path) -> None:
    path = put(tmp_path, LOG, LOG_TEXT)
    first = merge.read([log(tmp_path)], Query(limit=2))
    path.write_text("2026-11-25 10:46:49,123 - util.py[DEBUG]: after cloud-init clean --logs\n")
    second = merge.read([log(tmp_path)], Query(cursor=merge.decoded(first.cursor)))
    assert (second.entries, second.cursor) == ([], "")


def polled(live: object, count: int) -> list[str]:
    """Poll until so many entries came."""
    found: list[str] = []
    ends = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < ends, f"only {found}"
        found += [entry.message for entry in live.poll()]  # type: ignore[attr-defined]
        time.sleep(0.01)
    return found


def test_following_survives_rotation_emptying_and_removal(tmp_path: Path) -> None:
    path = put(tmp_path, LOG, LOG_TEXT)
    source = log(tmp_path)
    live = source.tail(source.end_position())
    assert list(live.poll()) == []
    with path.open("a") as file:
        file.write(entry_text(1, 2) + "2026-11-24 10:00:02,000 - a.py[INFO]: half a li")
        file.flush()
        assert polled(live, 1) == [entry_text(1, 2).rstrip()]
        file.write("ne\n")
    assert polled(live, 1)[0].endswith("half a line")
    with path.open("a") as file:
        file.write(entry_text(3, 0))
    rotate(path)  # before it was looked at
    with path.open("a") as file:
        file.write(entry_text(4, 0))
    assert polled(live, 2) == [entry_text(3, 0).rstrip(), entry_text(4, 0).rstrip()]
    os.truncate(path, 0)
    with path.open("a") as file:
        file.write(entry_text(5, 40))  # and it is longer than before at once
    assert polled(live, 1) == [entry_text(5, 40).rstrip()]
    path.unlink()
    live.poll()
    path.write_text(entry_text(6, 0))
    assert polled(live, 1) == [entry_text(6, 0).rstrip()]
    live.close()


def test_a_file_that_comes_later_is_followed_from_its_beginning(tmp_path: Path) -> None:
    source = output(tmp_path)
    live = source.tail(source.end_position())
    assert list(live.poll()) == []
    put(tmp_path, OUTPUT, OUTPUT_TEXT)
    assert len(polled(live, 8)) == 8
    live.close()


LINES = [b"\n", b"word\n", b"  indented\n", b"Traceback (most recent call last):\n", b"E: apt\n", b"\xff\x00\r\n",
         b"2026-11-24 10:46:49,123 - util.py[DEBUG]: begun\n"]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=30), st.booleans())
def test_no_line_is_in_two_entries_and_none_but_blank_ones_in_none(lines: list[bytes], line_based: bool) -> None:
    grouper = Grouper(line_based=line_based)
    whole = b"".join(lines)
    chunks = [*grouper.take(whole), *grouper.rest()]
    ends = 0
    for chunk in chunks:
        assert whole[ends : chunk.start].strip(b"\r\n") == b""
        assert chunk.text == whole[chunk.start : chunk.end].rstrip(b"\r\n")
        ends = chunk.end
    assert whole[ends:].strip(b"\r\n") == b""
