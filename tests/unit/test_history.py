# SPDX-License-Identifier: Apache-2.0
"""A disk that is busy holds up the history alone, and the latest text is what stays."""

from __future__ import annotations

import threading

from cc_sammy.engine.run_record_writer import History
from cc_sammy.host.fake import FakeHost


class BusyDisk(FakeHost):
    """Its first write takes as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.begun = threading.Event()
        self.written: list[str] = []

    def write_text(self, path: str, text: str, *, mode: int = 0o644, sync: bool = False) -> bool:
        self.begun.set()
        assert self.free.wait(30)
        self.written.append(text)
        return super().write_text(path, text, mode=mode, sync=sync)


def test_a_busy_disk_holds_nobody_up_and_the_latest_text_stays() -> None:
    host = BusyDisk()
    history = History(host, "/var/lib/sammy/runs/r.json")
    history.write("one")
    assert host.begun.wait(30)
    for text in ("two", "three"):
        history.write(text)  # returns, though the disk does not
    host.free.set()
    history.flush()
    assert host.written == ["one", "three"]
    assert host.files["/var/lib/sammy/runs/r.json"] == "three"


def test_a_full_disk_is_no_error_and_the_next_text_is_written() -> None:
    class Full(FakeHost):
        room = False

        def write_text(self, path: str, text: str, *, mode: int = 0o644, sync: bool = False) -> bool:
            if not self.room:
                raise OSError(28, "No space left on device")
            return super().write_text(path, text, mode=mode, sync=sync)

    host = Full()
    history = History(host, "/r.json")
    history.write("one")
    history.flush()
    host.room = True
    history.write("two")
    history.flush()
    assert host.files == {"/r.json": "two"}
