# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in words an operator can act on; each kind has a stable code to search for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cc_sammy.contract.problem import Problem, ProblemCode, ProblemError


class BootCode(ProblemCode):
    """The codes of cc_sammy."""

    SAMMY = "sammy", "Another failure of the boot tool; the text says which."
    CONFIG_INVALID = "config-invalid", "The configuration in the user-data or /etc/default/sammy is wrong."
    COMMAND_FAILED = "command-failed", "A program ended with a status other than 0."
    COMMAND_TIMEOUT = "command-timeout", "A program did not end by its deadline and was killed."
    STOPPED = "stopped", "The run was stopped from outside."
    STEP_FAILED = "step-failed", "A step could not reach its goal."
    PROVISIONING_FAILED = "provisioning-failed", "A required step failed, so the node is not ready."
    RANGES_REFUSED = "ranges-refused", "A list of Cloudflare's networks could not be fetched or was not credible."
    DRY_RUN_UNAVAILABLE = "dry-run-unavailable", "The firewall's rules could not be tried in a network namespace."


class SammyError(ProblemError):
    """Base of all errors of sammy."""

    code: ClassVar[ProblemCode] = BootCode.SAMMY

    def __init__(self, what: str | Problem, next_step: str = "", *, transient: bool = False) -> None:
        """Take what went wrong, the next step, and whether trying again may help (a network, a busy server)."""
        super().__init__(what, next_step)
        self.transient = transient


class ConfigError(SammyError):
    """The configuration is wrong; carries every problem found, so that one boot shows them all."""

    code = BootCode.CONFIG_INVALID

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

    code = BootCode.COMMAND_FAILED

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        self.argv, self.returncode, self.output = tuple(argv), returncode, output
        last = [line.strip() for line in output.splitlines() if line.strip()]
        # apt's and curl-like errors carry E: or error; the last lines are the best guess otherwise
        telling = [line for line in last if line.startswith(("E:", "Err:", "error", "Error", "fatal"))] or last
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
        super().__init__(f"{' '.join(argv[:3])} {how}: {' | '.join(telling[-3:]) or 'no output'}")


class CommandTimeout(SammyError):
    """A command did not end by its deadline and was killed with all its children."""

    code = BootCode.COMMAND_TIMEOUT

    def __init__(self, argv: Sequence[str], seconds: float, output: str) -> None:
        last = [line.strip() for line in output.splitlines() if line.strip()]
        super().__init__(
            f"{' '.join(argv[:3])} was killed after {seconds:.0f} s: {' | '.join(last[-2:]) or 'no output'}"
        )


class Stopped(SammyError):
    """The run was stopped from outside; its commands were ended with it."""

    code = BootCode.STOPPED

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(f"{' '.join(argv[:3])} was ended, for the run was stopped from outside")


class StepFailed(SammyError):
    """A step could not reach its goal."""

    code = BootCode.STEP_FAILED


class ProvisioningFailed(SammyError):
    """A required step failed; raised last, so that cloud-init's status tells it too."""

    code = BootCode.PROVISIONING_FAILED
