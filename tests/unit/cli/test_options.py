# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from cc_sammy.cli import options

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_documentations_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == options.markdown(), (
        "run: python3 -m cc_sammy.cli options --markdown > docs/configuration.md"
    )


def test_every_option_has_words_and_a_variable_of_its_own() -> None:
    rows = list(options.rows())
    assert [row["option"] for row in rows if not row["description"]] == []
    assert len({row["variable"] for row in rows}) == len(rows) > 40
