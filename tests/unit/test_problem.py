# SPDX-License-Identifier: Apache-2.0
"""Problems and their codes: one shape everywhere, each code listed in docs/errors.md and used in the code.

`python3 -m tests.unit.test_problem > docs/errors.md` writes the page.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cc_sammy import errors as boot
from cc_sammy.contract.problem import Problem, ProblemCode, ProblemError
from sammy_agent.base import errors as agent

TOP = Path(__file__).parents[2]
TABLES: tuple[tuple[str, str, type[ProblemCode]], ...] = (
    ("The boot tool and its firewall", "cc_sammy", boot.BootCode),
    ("The agent, its transport and the control plane", "sammy_agent", agent.Code),
)


def page() -> str:
    lines = [
        "# Codes of problems",
        "",
        "Whatever goes wrong has a code, which stays the same, a sentence, and the next step where there is one.",
        "Search for the code: `sammy status --json`, `sammy events` and commands with `--json` show it. This page is",
        "made from the code (tests/unit/test_problem.py).",
    ]
    for title, _, table in TABLES:
        lines += ["", f"## {title}", "", "| code | what it means |", "|-|-|"]
        lines += [f"| `{code}` | {code.meaning} |" for code in sorted(table)]
    return "\n".join(lines) + "\n"


def test_the_page_of_codes_is_what_the_code_says() -> None:
    text = (TOP / "docs" / "errors.md").read_text()
    assert text == page(), "run: python3 -m tests.unit.test_problem > docs/errors.md"


@pytest.mark.parametrize(("folder", "table"), [(folder, table) for _, folder, table in TABLES])
def test_every_code_is_used_and_means_something(folder: str, table: type[ProblemCode]) -> None:
    source = "".join(path.read_text() for path in sorted((TOP / folder).rglob("*.py")))
    used = set(re.findall(r"\b(?:Boot)?Code\.([A-Z_]+)\b", source))
    assert used == set(table.__members__)
    assert [code for code in table if not code.meaning.endswith(".") or not re.fullmatch("[a-z][a-z-]+", code)] == []


def test_no_code_means_two_things() -> None:
    codes = [code.value for _, _, table in TABLES for code in table]
    assert len(set(codes)) == len(codes) > 50


def test_no_error_of_ours_goes_without_a_problem() -> None:
    """Private ones may: they never leave their module."""
    own = re.compile(r"^class ([A-Z]\w*)\((?:Exception|ValueError|RuntimeError|KeyError)\)", re.MULTILINE)
    found = {
        (str(path.relative_to(TOP)), name)
        for folder in ("cc_sammy", "sammy_agent")
        for path in (TOP / folder).rglob("*.py")
        for name in own.findall(path.read_text())
    }
    assert found == {("cc_sammy/contract/problem.py", "ProblemError")}


def test_an_error_carries_its_class_code_or_the_problem_that_it_was_given() -> None:
    own = agent.TokenUnusable("no token", "Get one")
    assert own.problem == Problem(agent.Code.TOKEN_UNUSABLE, "no token", "Get one")
    assert str(own) == "no token. Get one" and isinstance(own, ProblemError)
    given = Problem(agent.Code.PORT_TAKEN, "port 1 is taken")
    assert agent.AgentError(given).problem is given and str(agent.AgentError(given)) == "port 1 is taken"


def test_what_may_pass_by_itself_is_said_beside_the_problem() -> None:
    error = boot.StepFailed("the mirror is away", "Wait", transient=True)
    assert error.transient and not boot.StepFailed("x").transient
    assert error.problem.to_json() == {"code": "step-failed", "text": "the mirror is away", "next_step": "Wait"}


@pytest.mark.parametrize("table", [table for _, _, table in TABLES])
def test_a_code_is_its_text_in_json_and_in_formats(table: type[ProblemCode]) -> None:
    find: Any = table
    for code in table:
        assert json.dumps({"code": code}) == json.dumps({"code": code.value})
        assert f"{code}" == "%s" % code == str(code) == code.value  # noqa: UP031  (as logging formats it)
        assert find(code.value) is code


def test_the_firewalls_program_does_not_load_dataclasses_for_it() -> None:
    code = "import sys; import cc_sammy.errors; sys.exit('dataclasses' in sys.modules or 'inspect' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(TOP)!r}); {code}"],
                          check=False).returncode == 0  # fmt: skip


if __name__ == "__main__":
    print(page(), end="")
