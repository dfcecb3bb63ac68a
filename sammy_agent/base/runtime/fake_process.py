# SPDX-License-Identifier: Apache-2.0
"""Programs for tests: answers in the place of `process.run`, without a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sammy_agent.base.runtime.process import Completed

Answer = Callable[[tuple[str, ...], bytes], Completed]


class FakePrograms:
    """Takes the place of `process.run`; the answer given last for the longest beginning of a command line counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.inputs: list[bytes] = []
        self.deadlines: list[float] = []
        self._answers: dict[tuple[str, ...], Answer] = {}

    def answer(
        self, *beginning: str, stdout: str = "", stderr: str = "", status: int | None = 0, problem: str = ""
    ) -> None:
        """Have command lines that begin so answered."""
        self.act(
            *beginning,
            do=lambda argv, input: Completed(argv, status, stdout.encode(), stderr.encode(), problem),
        )

    def act(self, *beginning: str, do: Answer) -> None:
        """Have command lines that begin so answered by a function of the command line and its input."""
        self._answers[beginning] = do

    def __call__(
        self,
        argv: Sequence[str],
        deadline: float,
        *,
        input: bytes = b"",
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
    ) -> Completed:
        """Answer as was said; any other program is not installed."""
        words = tuple(argv)
        self.calls.append(words)
        self.inputs.append(input)
        self.deadlines.append(deadline)
        for count in range(len(words), -1, -1):
            if (do := self._answers.get(words[:count])) is not None:
                return do(words, input)
        return Completed(words, None, problem="No such file or directory")
