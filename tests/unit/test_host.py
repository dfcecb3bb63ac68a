# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.errors import CommandFailed, CommandTimeout, Stopped
from cc_sammy.host import usage
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import Host
from cc_sammy.host.usage import ResourceUsage
from tests.unit.fake_files import lay_out


def test_a_program_is_found_on_the_commands_own_path_and_only_where_it_may_be_run(fs: FakeFilesystem) -> None:
    assert Host().which("dockerd") is None
    lay_out(fs, {"/opt/bin/dockerd": ""}, 0o755)
    lay_out(fs, {"/usr/local/bin/dockerd": ""}, 0o644)
    assert Host().which("dockerd") is None
    lay_out(fs, {"/usr/sbin/dockerd": ""}, 0o755)
    assert Host().which("dockerd") == FakeHost().which("dockerd") == "/usr/sbin/dockerd"


def test_a_command_past_its_deadline_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"echo said before; sleep 1000 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(CommandTimeout, match="killed after") as killed:
        Host().run(["sh", "-c", script], timeout=2)
    assert "said before" in str(killed.value)
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 30
    while _lives(pid) and time.monotonic() < end:  # SIGKILL is sent, the kernel takes its moment
        time.sleep(0.01)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_failed_command_says_its_telling_lines() -> None:
    with pytest.raises(CommandFailed, match="status 3: E: no space left"):
        Host().run(["sh", "-c", "echo 'E: no space left' >&2; echo bye; exit 3"])


def test_each_commands_cpu_is_added_up_by_its_name() -> None:
    host = Host()
    host.run(["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
    host.run(["true"])
    assert host.usage_totals.cpu_ms["sh"] > host.usage_totals.cpu_ms["true"] >= 0


def test_what_puts_something_back_has_its_time_when_the_steps_is_over() -> None:
    host = Host().for_step(lambda line: None, 0.0)
    with pytest.raises(CommandTimeout):
        host.run(["sleep", "5"])
    assert host.run(["sh", "-c", "sleep 0.3; echo back"], cleanup=True).stdout == "back\n"


def test_a_step_is_told_what_its_own_commands_used_and_no_others(tmp_path: Path) -> None:
    whole = Host()
    busy, idle = (whole.for_step(lambda line: None, 60.0) for _ in range(2))
    busy.run(["dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=1M", "count=4", "conv=fsync"])
    busy.run(["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
    assert idle.usage is None and whole.usage is None
    assert busy.usage is not None and busy.usage.cpu_ms > 0
    assert busy.usage.cpu_ms == pytest.approx(sum(whole.usage_totals.cpu_ms.values()))


def test_a_peak_is_told_only_where_the_command_was_larger_than_this_process() -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    small, large = Host(), Host()
    small.run(["true"])
    # Its own child holds the memory: what a command waited for is in its account.
    size = own + 64 * 1024
    large.run(["sh", "-c", f"{sys.executable} -c 'len(bytearray({size} * 1024))'; true"])
    assert small.usage is not None and small.usage.peak_kb is None
    assert large.usage is not None and large.usage.peak_kb is not None
    assert size <= large.usage.peak_kb


def test_the_kernels_account_is_read_in_its_units_and_adds_up() -> None:
    fake = resource.struct_rusage((0.25, 0.5, 10, *[0] * 6, 3, 8, *[0] * 5))
    assert usage._usage(fake, 9) == ResourceUsage(750.0, 10, 3 * 512, 8 * 512)
    assert ResourceUsage(1, None, 2, 3) + ResourceUsage(1, 5, 2, 3) == ResourceUsage(2, 5, 4, 6)


def test_a_killed_command_is_booked_too() -> None:
    host = Host()
    with pytest.raises(CommandTimeout):
        host.run(["sh", "-c", "while :; do :; done"], timeout=0.5)
    assert host.usage is not None and host.usage.cpu_ms > 0


def test_a_command_that_closes_its_output_and_stays_is_killed_at_its_deadline() -> None:
    with pytest.raises(CommandTimeout, match="killed after"):
        Host().run(["sh", "-c", "exec >&- 2>&-; sleep 1000"], timeout=0.5)


def told(seconds: float = 60.0) -> tuple[Host, list[str]]:
    lines: list[str] = []
    return Host().for_step(lines.append, seconds), lines


def test_a_line_is_told_while_its_command_still_runs(tmp_path: Path) -> None:
    seen = threading.Event()
    host = Host().for_step(lambda line: seen.set() if line == "first" else None, 60.0)
    # It ends only after its first line has been told.
    script = f"echo first; until [ -e {tmp_path}/go ]; do sleep 0.01; done; printf last"

    def go_on() -> None:
        seen.wait(30)
        (tmp_path / "go").touch()

    threading.Thread(target=go_on).start()
    assert host.run(["sh", "-c", script], timeout=30).stdout == "first\nlast"


def test_every_line_is_told_once_also_of_a_command_that_fails_or_is_killed() -> None:
    for script, error in (("exit 0", None), ("exit 1", CommandFailed), ("sleep 1000", CommandTimeout)):
        host, lines = told()
        with contextlib.ExitStack() as stack:
            if error is not None:
                stack.enter_context(pytest.raises(error))
            host.run(["sh", "-c", f"echo a; printf 'b\\nc'; {script}"], timeout=1)
        assert lines == ["a", "b", "c"]


def test_a_long_input_and_a_long_output_do_not_wait_for_each_other() -> None:
    text = "a line of the input\n" * 50_000
    assert Host().run(["cat"], input=text).stdout == text
    assert Host().run(["true"], input=text).stdout == ""  # it reads nothing of it


def test_a_daemon_that_keeps_the_pipe_does_not_hold_its_step() -> None:
    begun = time.monotonic()
    said = Host().run(["sh", "-c", "sleep 1000 & echo $!"], timeout=100).stdout
    os.kill(int(said), 9)
    assert time.monotonic() - begun < 50


def test_a_stopped_run_has_no_command_left_and_begins_none_but_what_tidies_up(tmp_path: Path) -> None:
    whole = Host()
    host = whole.for_step(lambda line: None, 600.0)
    ended: list[Exception] = []

    def work() -> None:
        try:
            host.run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"], timeout=500)
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    whole.stop()
    thread.join(30)
    assert [str(error).partition(",")[0] for error in ended] == [
        "sh -c sleep 1000 & echo $! > " + f"{tmp_path}/pid; wait was ended"
    ]
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not _lives(pid))
    with pytest.raises(Stopped):
        host.run(["sleep", "1000"])
    with pytest.raises(Stopped):
        host.sleep(1000)
    assert host.run(["echo", "back"], cleanup=True).stdout == "back\n"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
