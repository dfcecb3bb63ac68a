# SPDX-License-Identifier: Apache-2.0
"""What went wrong, the same for the boot tool, the agent and its transport: a code, a sentence, the next step.

The firewall's program imports this, so it is a NamedTuple: `dataclasses` would cost that program a sixth of its start.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, NamedTuple


class ProblemCode(str, Enum):
    """Base of the tables of codes; a member is written `NAME = "code", "what it means"` (docs/errors.md lists them)."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> ProblemCode:
        """Make the code the value, so that `Code("…")` finds the member."""
        member = str.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        """Return the code; format() of a mixed-in Enum differs between Python 3.10 and 3.12."""
        return str.__format__(self, spec)


class Problem(NamedTuple):
    """Why something does not work: a stable code to search for, a plain sentence, the next step."""

    code: ProblemCode
    text: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.text}. {self.next_step}" if self.next_step else self.text

    def to_json(self) -> dict[str, str]:
        """Return it as status, events and answers show it."""
        return {"code": self.code.value, "text": self.text, "next_step": self.next_step}


class ProblemError(Exception):
    """Base of all errors that carry a problem; each class has a code of its own."""

    code: ClassVar[ProblemCode]

    def __init__(self, what: str | Problem, next_step: str = "") -> None:
        """Take a sentence and the next step, which get the class's code, or a problem as it is."""
        self.problem = what if isinstance(what, Problem) else Problem(self.code, what, next_step)
        super().__init__(str(self.problem))
