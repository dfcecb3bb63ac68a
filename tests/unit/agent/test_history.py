# SPDX-License-Identifier: Apache-2.0
"""The ring of what lately happened: whole where the store makes one row of many, bounded, and passed on."""

from __future__ import annotations

from sammy_agent.base.events import kinds
from sammy_agent.diagnostics.event_store.recent import RecentEvents


def test_it_keeps_the_last_in_full_passes_all_on_and_tells_of_them() -> None:
    kept: list[str] = []
    told: list[tuple[str, float | None]] = []
    history = RecentEvents(lambda kind, message, *, detail=None, seconds=None: kept.append(message), most=3)
    history.recorded.connect(lambda event: told.append((event.kind.type, event.seconds)))
    history.record(kinds.AGENT_STARTED, "not of the network")
    for number in range(4):
        history.record(kinds.TRANSPORT_REMOUNTED, f"route {number}", detail={"closed": number})
    history.record(kinds.CONTACT_REGAINED, "contact again", seconds=700.12345)
    assert len(kept) == 6
    snapshot = history.snapshot()
    assert snapshot["forgotten"] == 2
    assert [change["reason"] for change in snapshot["changes"]] == ["route 2", "route 3", "contact again"]
    first, last = snapshot["changes"][0], snapshot["changes"][-1]
    assert first["detail"] == {"closed": 2} and first["kind"] == "transport.remounted"
    assert last["seconds"] == 700.123 and last["boottime_s"] >= first["boottime_s"] > 0
    assert told[-1] == ("contact.regained", 700.12345) and len(told) == 5
