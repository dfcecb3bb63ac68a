# SPDX-License-Identifier: Apache-2.0
"""What leaves for a terminal: foreign text cannot repaint it, colours go only where a person looks."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest

from cc_sammy.common import terminal
from cc_sammy.common.terminal import escape_control_characters


def test_a_text_that_would_repaint_a_terminal_is_shown_by_its_numbers() -> None:
    assert escape_control_characters("a\x1b[31mb\u202ec\nd\udcffe ü") == r"a\x1b[31mb\u202ec\nd\udcffe ü"


def test_no_control_no_mark_of_direction_and_no_line_break_is_left() -> None:
    for number in range(sys.maxunicode + 1):
        sign = chr(number)
        shown = escape_control_characters(sign)
        if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert re.fullmatch(r"\\[nrt]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}", shown), hex(number)
        assert shown.isprintable()


def test_printable_text_of_any_language_stays() -> None:
    for text in ("", "plain", "Grüße, 你好, שלום", "emoji 🙂"):
        assert escape_control_characters(text) == text


def test_a_word_is_coloured_only_where_a_person_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert terminal.colorize("x", "failed") == "x"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.colorize("x", "failed") == terminal.colorize("x", "error") == "\x1b[31;1mx\x1b[0m"
    assert terminal.colorize("x", "pending") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.colorize("x", "failed") == "x"
