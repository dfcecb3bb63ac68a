# SPDX-License-Identifier: Apache-2.0
"""What leaves the reader: harmless on a terminal, without secrets over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.cli import log_lines, main
from sammy_agent.diagnostics.logs import reader, redaction
from sammy_agent.diagnostics.logs.cloud_init import LOG
from sammy_agent.diagnostics.logs.entry import Entry
from sammy_agent.diagnostics.logs.query import Query
from sammy_agent.diagnostics.redaction.redactor import REDACTED, Redactor
from tests.unit.agent.test_logs_cloud_init import LOG_TEXT, put

KEY = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
       "ZZZZ", "-----END PRIVATE KEY-----"]  # fmt: skip


def entries(*messages: str, source: str = "docker", **metadata: str) -> list[Entry]:
    return [Entry(number, "info", source, text, metadata) for number, text in enumerate(messages)]


@given(st.text())
def test_nothing_raw_reaches_a_terminal(text: str) -> None:
    for line in log_lines.lines(Entry(0, "info", "docker", text, {"container": text})):
        assert line.isprintable()


def test_control_characters_are_shown_and_colours_left_out() -> None:
    (line,) = log_lines.lines(entries("\x1b[31mred\x1b[0m\x1b]0;title\x07\tend\r")[0])
    assert line.endswith(r"red\x1b]0;title\x07   end")


def test_lines_align_and_say_who_spoke() -> None:
    shown = [
        log_lines.lines(entry)
        for entry in (
            Entry(1_500_000, "warn", "cloud-init", "first\nsecond"),
            Entry(1_500_000, "error", "docker", "word", {"container": "web"}),
            Entry(1_500_000, "info", "systemd", "word", {"identifier": "sshd", "unit": "ssh.service"}),
        )
    ]
    assert shown[0][0].endswith(".500  warn   cloud-init  first")
    assert shown[0][1].index("second") == shown[0][0].index("first") == shown[1][0].index("web: word")
    assert shown[2][0].endswith("systemd     sshd: word")


def test_a_key_that_comes_line_by_line_is_taken_out_also_across_two_lists() -> None:
    clean = redaction.EntryRedactor(Redactor(["a-known-secret"]))
    other = entries("it stays: QUJDREVGR0hJSktMTU5PUFFSU1Q=", container="db")
    for cut in range(len(KEY)):
        first = clean.redact([*entries(*KEY[:cut], container="web"), *other])
        second = clean.redact(entries(*KEY[cut:], "after a-known-secret it", container="web"))
        text = "\n".join(entry.message for entry in [*first, *second])
        assert not [line for line in KEY[1:3] if line in text], cut
        assert text.endswith(f"after {REDACTED} it") and "it stays: QUJD" in text
        assert len(first) + len(second) == len(KEY) + 2


@given(st.lists(st.text(alphabet="ab\n\r\x0b\u2028 =", max_size=8), max_size=6))
def test_scrubbing_what_holds_no_secret_changes_no_word(messages: list[str]) -> None:
    found = redaction.EntryRedactor(Redactor()).redact(entries(*messages))
    assert [entry.message.split() for entry in found] == [text.split() for text in messages]


def test_secrets_cannot_be_searched_for(tmp_path: Path) -> None:
    stamp = "2026-11-24 10:46:49,123 - util.py[DEBUG]: "
    put(tmp_path, LOG, f"{stamp}password=hunter2hunter2 was used\n{stamp}line {KEY[1]}\n{stamp}hunter of words\n")
    redactor = Redactor(["another-secret"])

    def asked(text: str, **more: Any) -> list[str]:
        page = reader.page(Query(source="cloud-init", search=text, limit=1), str(tmp_path), **more)
        return [entry.message for entry in page.entries] + [page.cursor] * bool(page.cursor)

    assert len(asked("hunter2")) == 1 and len(asked(KEY[1][:5])) == 1
    assert asked("hunter2", redactor=redactor) == asked(KEY[1][:5], redactor=redactor) == []
    assert asked("was used", redactor=redactor) == [f"{stamp}password={REDACTED} was used"]
    assert asked("hunter of", redactor=redactor) == [f"{stamp}hunter of words"]


def test_statuses_of_the_command_mean_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, LOG, LOG_TEXT)
    asked = ["logs", "--root", str(tmp_path), "--source", "cloud-init"]
    assert main.main([*asked, "--level", "error"]) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (6, "")
    assert "util.py[ERROR]" in out.splitlines()[0]
    assert main.main([*asked, "--search", "nowhere"]) == 3
    assert "no entries; without --source or --search there may be some" in capsys.readouterr().err
    assert main.main([*asked, "--level", "loud", "--since", "soon"]) == 2
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["level", "since"]
    assert main.main([*asked, "-f", "--until", "today"]) == 2


def test_a_page_that_takes_long_is_read_on_until_it_is_full(tmp_path: Path) -> None:
    put(tmp_path, LOG, LOG_TEXT + "2026-11-24 10:46:54,000 - a.py[DEBUG]: another\n" * 1000)
    query = Query(source="cloud-init", search="Cloud-init v.")
    first = reader.page(query, str(tmp_path), seconds=-1.0)
    assert first.entries == [] and first.cursor
    assert len(reader.whole_page(query, str(tmp_path), seconds=-1.0).entries) == 1


def test_who_follows_and_takes_nothing_is_cut_off_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from sammy_agent.daemon.server import log_routes

    monkeypatch.setattr(log_routes, "STALLED", 0.05)
    closed: list[object] = []
    turns: list[int] = []

    def read() -> Iterator[list[Entry]]:
        try:
            while True:
                turns.append(1)
                yield entries("a word", "another")
        finally:
            closed.append("reader")

    class Stalled(log_routes.LogStream):
        """A stream to somebody who takes nothing."""

        def __init__(self) -> None:
            self.readers = log_routes.Readers()

        peer = "192.0.2.1"

        def write_message(self, message: object, binary: bool = False) -> asyncio.Future[None]:
            return asyncio.get_running_loop().create_future()

        def close(self, code: int | None = None, reason: str | None = None) -> None:
            closed.append((code, reason))

    async def follow() -> None:
        stalled = Stalled()
        await stalled._send(read())
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, stalled.readers.streams.shutdown)

    asyncio.run(follow())
    assert closed == [(1013, "nothing was read for 0 s"), "reader"]
    assert len(turns) == 1, "nothing is read ahead"
