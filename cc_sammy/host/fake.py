# SPDX-License-Identifier: Apache-2.0
"""A machine in memory with the host's interface, for tests: files, scripted commands, a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cc_sammy.errors import CommandFailed
from cc_sammy.host.host import CommandResult, Host


class FakeHost(Host):
    """A system in memory: `files`, canned answers by `script`, and the `calls` made. Tests hold it to Host."""

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.files: dict[str, str] = dict(files or {})
        self.modes: dict[str, int] = {}
        self.calls: list[tuple[str, ...]] = []
        self.now = 100.0
        self._scripts: list[tuple[tuple[str, ...], CommandResult]] = []

    def for_step(self, on_output: Callable[[str], None], seconds: float) -> Host:
        """Return itself: nothing prints in memory."""
        return self

    def script(self, argv: Sequence[str], returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
        """Answer commands that begin with `argv` so; the latest script wins."""
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

    def read_text(self, path: str) -> str | None:
        """Return the text in memory."""
        return self.files.get(path)

    def write_text(self, path: str, text: str, *, mode: int = 0o644, sync: bool = False) -> bool:
        """Keep the text in memory."""
        changed = self.files.get(path) != text or self.modes.get(path, mode) != mode
        self.files[path], self.modes[path] = text, mode
        return changed

    def remove(self, path: str) -> bool:
        """Forget the file."""
        return self.files.pop(path, None) is not None

    def exists(self, path: str) -> bool:
        """Tell whether a file or a directory above one is in memory."""
        return path in self.files or any(name.startswith(path.rstrip("/") + "/") for name in self.files)

    def glob(self, pattern: str) -> list[str]:
        """Return the files in memory that match."""
        import fnmatch

        return sorted(fnmatch.filter(self.files, pattern))
