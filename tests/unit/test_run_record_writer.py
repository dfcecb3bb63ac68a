# SPDX-License-Identifier: Apache-2.0
"""A disk that is busy holds up the run record alone, the latest text is what stays, and no fault of it is an error."""

from __future__ import annotations

import threading

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.common import files
from cc_sammy.engine import run_record_writer
from cc_sammy.engine.run_record_writer import RunRecordWriter
from tests.unit.fake_files import contents, disk_full, read_only

PATH = "/var/lib/sammy/runs/r.json"


def test_a_busy_disk_holds_nobody_up_and_the_latest_text_stays(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, begun, written = threading.Event(), threading.Event(), []

    def busy(path: str, text: str, *, sync: bool) -> bool:
        begun.set()
        assert free.wait(30)
        written.append((text, sync))
        return files.write_text(path, text, sync=sync)

    monkeypatch.setattr(run_record_writer, "files", Busy(busy))
    writer = RunRecordWriter(PATH)
    writer.write("one")
    assert begun.wait(30)
    for text in ("two", "three"):
        writer.write(text)  # returns, though the disk does not
    free.set()
    writer.flush()
    assert written == [("one", True), ("three", True)]
    assert contents(fs, "/var") == {PATH: "three"}


class Busy:
    """The functions of files, of which writing takes as long as it is told to."""

    def __init__(self, write_text: object) -> None:
        self.write_text = write_text


def test_a_full_or_read_only_disk_is_no_error_and_the_next_text_is_written(fs: FakeFilesystem) -> None:
    fs.set_disk_usage(1000)
    writer = RunRecordWriter(PATH)
    for fault in (disk_full(fs), read_only("/var")):
        with fault:
            writer.write("one")
            writer.flush()
        assert contents(fs, "/var") == {}
    writer.write("two")
    writer.flush()
    assert contents(fs, "/var") == {PATH: "two"}
