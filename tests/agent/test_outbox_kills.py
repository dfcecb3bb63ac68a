# SPDX-License-Identifier: Apache-2.0
"""The sender is killed again and again while the control plane answers as it pleases; in full in tests/bench/outbox."""

from __future__ import annotations

from pathlib import Path

from tests.agent.agent_kills import kill_agent_often
from tests.agent.outbox_lab import MIX, kill_often, problems

WORKSPACES, EACH = 5, 200


def test_every_message_arrives_once_and_in_order_whatever_is_killed_or_answered(tmp_path: Path) -> None:
    done = kill_often(tmp_path, kills=15, workspaces=WORKSPACES, each=EACH, seed=7, patience=60.0)
    assert done["problems"] == []
    assert done["reasons"] and all(one.startswith("400: ") for one in done["reasons"])
    assert done["totals"]["rows"] == 0 and done["totals"]["bytes"] == 0 and done["totals"]["dropped"] == 0
    assert set(done["answers"]) == {"200", *MIX}, "every manner was met"
    assert 0 < done["at_last_kill"] < WORKSPACES * EACH, "the kills fell into the work"
    assert done["duplicates"] > 0, "an answer was lost after its effect, and the same row came again"

    # what compares is shown each fault it is to find
    kept, aside = done["kept"], done["set_aside"]
    first, *others = kept["ws-0"]
    for wrong in ([first, first, *others], others, [*others, first]):
        assert problems({**kept, "ws-0": wrong}, aside, WORKSPACES, EACH)
    assert problems(kept, set(), WORKSPACES, EACH)
    assert problems(kept, aside | {"ws-0:1"}, WORKSPACES, EACH)


def test_a_real_agent_is_killed_while_workspaces_write_to_it(tmp_path: Path) -> None:
    done = kill_agent_often(tmp_path, kills=8, workspaces=5, each=60, seed=11, seconds=6.0, patience=180.0, bad=(20,))
    assert done["problems"] == []
    assert done["set_aside"] == 5 and all(one.startswith("400: ") for one in done["reasons"])
    assert done["effects"] == 5 * 59
    assert done["said_again"] > 0, "the kills fell between a message and its answer"
