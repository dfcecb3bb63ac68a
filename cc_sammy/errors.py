# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in words an operator can act on; each kind has a stable code to search for."""

from __future__ import annotations

from collections.abc import Sequence


class SammyError(Exception):
    """Base of all errors of sammy: a plain sentence, and the next step where there is one."""

    code = "sammy"

    def __init__(self, message: str, next_step: str = "", *, passing: bool = False) -> None:
        """Take the sentence, the next step, and whether the cause may pass by itself (a network, a busy server)."""
        self.message = message
        self.next_step = next_step
        self.passing = passing
        super().__init__(f"{message}. {next_step}" if next_step else message)


class ConfigError(SammyError):
    """The configuration is wrong; carries every problem found, so that one boot shows them all."""

    code = "config-invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "; ".join(f"({number}) {problem}" for number, problem in enumerate(self.problems, 1))
        super().__init__(
            f"the sammy: configuration has {count} problem{'s' if count > 1 else ''}: {lines}",
            "Correct the user-data or /etc/default/sammy; `sammy validate FILE` checks it beforehand",
        )


class CommandFailed(SammyError):
    """A command ended with a status other than 0."""

    code = "command-failed"

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        self.argv, self.returncode, self.output = tuple(argv), returncode, output
        last = [line.strip() for line in output.splitlines() if line.strip()]
        # apt's and curl-like errors carry E: or error; the last lines are the best guess otherwise
        telling = [line for line in last if line.startswith(("E:", "Err:", "error", "Error", "fatal"))] or last
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
        super().__init__(f"{' '.join(argv[:3])} {how}: {' | '.join(telling[-3:]) or 'no output'}")


class CommandTimeout(SammyError):
    """A command did not end by its deadline and was killed with all its children."""

    code = "command-timeout"

    def __init__(self, argv: Sequence[str], seconds: float, output: str) -> None:
        last = [line.strip() for line in output.splitlines() if line.strip()]
        super().__init__(
            f"{' '.join(argv[:3])} was killed after {seconds:.0f} s: {' | '.join(last[-2:]) or 'no output'}"
        )


class Stopped(SammyError):
    """The run was stopped from outside; its commands were ended with it."""

    code = "stopped"

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(f"{' '.join(argv[:3])} was ended, for the run was stopped from outside")


class StepFailed(SammyError):
    """A step could not reach its goal."""

    code = "step-failed"


class ProvisioningFailed(SammyError):
    """A required step failed; raised last, so that cloud-init's status tells it too."""

    code = "provisioning-failed"
