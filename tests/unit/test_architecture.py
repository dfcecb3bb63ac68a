# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md against the contracts, and the contracts against the folders."""

from __future__ import annotations

import re

import pytest

from tests import rooms


def test_the_page_has_the_rooms_of_the_contracts() -> None:
    assert rooms.held() == rooms.tables(), "run: python3 -m tests.rooms --write"


def test_every_room_says_what_belongs_there() -> None:
    silent = [line for line in rooms.tables().splitlines() if line.endswith("|  |")]
    assert silent == []


@pytest.mark.parametrize("contract", rooms.contracts(), ids=lambda contract: str(contract["id"]))
def test_a_contract_leaves_nothing_out(contract: dict[str, object]) -> None:
    assert contract["exhaustive"] is True
    assert not {"ignore_imports", "exhaustive_ignores", "unmatched_ignore_imports_alerting"} & contract.keys()


def test_every_path_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:cc_sammy|sammy_agent|docs|tests|packaging)/[\w./-]+)`", rooms.PAGE.read_text()))
    assert named, "the detector is blind"
    assert [path for path in sorted(named) if not (rooms.TOP / path).exists()] == []
