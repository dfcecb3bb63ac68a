# SPDX-License-Identifier: Apache-2.0
"""A host for tests: scripted commands and a clock. Files are a fake file system's (tests/unit/fake_files.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cc_sammy.errors import CommandFailed
from cc_sammy.host.host import CommandResult, Host


class FakeHost(Host):
    """Runs nothing: answers commands from `script`, and keeps the `calls` made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, ...]] = []
        self.now = 100.0
        self._scripts: list[tuple[tuple[str, ...], CommandResult]] = []

    def for_step(self, on_output: Callable[[str], None], seconds: float) -> Host:
        """Return itself: nothing is printed."""
        return self

    def script(self, argv: Sequence[str], returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
        """Answer commands that start with `argv` this way; the latest script wins."""
        self._scripts.insert(0, (tuple(argv), CommandResult(tuple(argv), returncode, stdout, stderr)))

    def boottime(self) -> float:
        """Return the fake clock."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move the fake clock."""
        self.now += seconds

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
        """Answer from the scripts; an unscripted command succeeds silently."""
        self.calls.append(tuple(argv))
        for prefix, result in self._scripts:
            if tuple(argv[: len(prefix)]) == prefix:
                if check and result.returncode != 0:
                    raise CommandFailed(argv, result.returncode, result.stdout + result.stderr)
                return CommandResult(tuple(argv), result.returncode, result.stdout, result.stderr)
        return CommandResult(tuple(argv), 0, "", "")
