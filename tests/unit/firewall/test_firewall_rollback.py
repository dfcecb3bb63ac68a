# SPDX-License-Identifier: Apache-2.0
"""What a roll-back keeps on disk, and how long it stands."""

from __future__ import annotations

import json

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.common import files
from cc_sammy.firewall import rollback
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model import policy as policy_module

WANTED = policy_module.Policy(8443, *networks.parse(["cloudflare"], "test"), ssh="drop", uplinks=("eth0",))
GOOD = WANTED._replace(allow_any=True, ssh="networks", ssh4=networks.parse(["192.0.2.0/24"], "test")[0])


@pytest.fixture(autouse=True)
def empty(fs: FakeFilesystem) -> None:
    """A machine without files."""


def rolled_back(*, restored: bool = True, refused: policy_module.Policy = WANTED) -> None:
    note = {"why": "it stayed away", "at": 7, "restored": restored, "refused": rollback.to_text(refused)}
    files.write_text(rollback.KNOWN_GOOD, rollback.to_text(GOOD))
    files.write_text(rollback.ROLLED_BACK, json.dumps(note))


@pytest.mark.parametrize("policy", [WANTED, GOOD])
def test_a_policy_is_read_back_as_it_was_but_for_the_machines_part(policy: policy_module.Policy) -> None:
    assert rollback.from_text(rollback.to_text(policy)) == policy._replace(uplinks=())


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '"x"', '{"agent_port": 8443}', rollback.to_text(WANTED)[:-2]])
def test_a_damaged_policy_is_none(text: str | None) -> None:
    assert rollback.from_text(text) is None


def test_after_a_roll_back_the_good_rules_are_the_ones_in_force() -> None:
    rolled_back()
    assert rollback.effective_policy(WANTED) == GOOD
    assert rollback.active_rollback(WANTED) == {"why": "it stayed away", "at": 7, "restored": True}


def test_it_stands_when_a_route_changes_and_ends_when_other_rules_are_configured() -> None:
    rolled_back()
    elsewhere = WANTED._replace(uplinks=("br-lan",))
    assert rollback.effective_policy(elsewhere) == GOOD._replace(uplinks=("br-lan",))
    other = WANTED._replace(ssh="open")
    assert (rollback.effective_policy(other), rollback.active_rollback(other)) == (other, None)


def test_without_a_note_or_good_rules_the_wanted_ones_are_in_force() -> None:
    assert rollback.effective_policy(WANTED) == WANTED
    rolled_back(restored=False)
    assert rollback.effective_policy(WANTED) == WANTED
    rolled_back()
    files.remove(rollback.KNOWN_GOOD)
    assert rollback.effective_policy(WANTED) == WANTED
    rolled_back()
    files.write_text(rollback.ROLLED_BACK, "{")
    assert rollback.effective_policy(WANTED) == WANTED
