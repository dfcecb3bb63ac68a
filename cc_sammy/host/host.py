# SPDX-License-Identifier: Apache-2.0
"""Commands and the clock, replaced by a fake in tests; files are read and written directly (common.files).

Commands run in a process group of their own with a deadline, so that nothing outlives a killed step. What they used is
added up per step and per program: boot cost is a feature, and sammy's own must be distinguishable from apt's.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cc_sammy.errors import CommandFailed, CommandTimeout, Stopped
from cc_sammy.host.command import CommandIO, RunningCommands, kill
from cc_sammy.host.usage import MeasuredProcess, ResourceUsage, UsageTotals

# cloud-init's unit may have any PATH; C.UTF-8 keeps messages in the language that our errors are matched in.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
}


class CommandResult(NamedTuple):
    """An ended command: status, output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str = ""


class Host:
    """The real system; `on_output` is called with each line that a command prints."""

    def __init__(
        self,
        on_output: Callable[[str], None] | None = None,
        totals: UsageTotals | None = None,
        deadline: float | None = None,
        commands: RunningCommands | None = None,
    ) -> None:
        self._on_output = on_output
        self._deadline = deadline
        self._commands = commands or RunningCommands()
        self.usage_totals = totals or UsageTotals()
        self._adding = threading.Lock()
        self.usage: ResourceUsage | None = None  # of this step's commands; None: it ran none
        self.results: dict[str, str] = {}  # what the step obtained, for its record: an image's digest by its name

    def for_step(self, on_output: Callable[[str], None], seconds: float) -> Host:
        """Return this host for one step: its output goes to `on_output`, no command outlives `seconds`."""
        return Host(on_output, self.usage_totals, time.monotonic() + seconds, self._commands)

    def stop(self) -> None:
        """Kill every command of every step; those that start from now on fail, except a cleanup."""
        self._commands.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether the run was stopped from outside."""
        return self._commands.stopped.is_set()

    def boottime(self) -> float:
        """Return seconds since the kernel started, suspend included (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def print_line(self, line: str) -> None:
        """Print one line of the step's own where its commands' output goes. Thread-safe, as `on_output` is."""
        if self._on_output:
            self._on_output(line)

    def sleep(self, seconds: float) -> None:
        """Sleep; tests replace it.

        :raises Stopped: in a step, as soon as the run is stopped from outside.
        """
        if self._commands.stopped.wait(seconds) and self._deadline is not None:
            raise Stopped(["sleep"])

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        quiet: bool = False,
        cleanup: bool = False,
    ) -> CommandResult:
        """Run a command to its end.

        :param timeout: seconds; then the whole process group is killed.
        :param quiet: do not copy the output to the journal.
        :param cleanup: it restores something, so it may still run when the step's time is over.
        :raises CommandFailed: status other than 0, or no such program, with `check`.
        :raises CommandTimeout: the deadline passed.
        :raises Stopped: the run was stopped from outside before the command had ended.
        """
        try:
            process = MeasuredProcess(
                list(argv),
                stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**ENVIRONMENT, **(env or {})},
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            if check:
                raise CommandFailed(argv, 127, str(error)) from error
            return CommandResult(tuple(argv), 127, "", str(error))
        before = time.monotonic()
        if self._deadline is not None and not cleanup:
            timeout = max(0.1, min(timeout, self._deadline - before))
        command = CommandIO(process, (input or "").encode(), None if quiet else self._on_output)
        try:
            with self._commands.tracked(process, cleanup=cleanup):
                command.run_until(before + timeout)
        except subprocess.TimeoutExpired as expired:
            kill(process)
            command.finish()
            raise CommandTimeout(argv, time.monotonic() - before, "".join(command.output)) from expired
        finally:
            self._add_usage(argv[0], process.usage or ResourceUsage())
        if process.returncode < 0 and self.is_stopped and not cleanup:
            raise Stopped(argv)
        out, err = command.output
        if check and process.returncode != 0:
            raise CommandFailed(argv, process.returncode, out + err)
        return CommandResult(tuple(argv), process.returncode, out, err)

    def _add_usage(self, program: str, used: ResourceUsage) -> None:
        self.usage_totals.add(os.path.basename(program), used)
        with self._adding:  # a step may run two commands at once
            self.usage = used if self.usage is None else self.usage + used

    def which(self, program: str) -> str | None:
        """Return the program's path on the commands' own PATH."""
        import shutil

        return shutil.which(program, path=ENVIRONMENT["PATH"])
