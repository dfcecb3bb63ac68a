# SPDX-License-Identifier: Apache-2.0
"""Both commands run as they are: `sammy VERB …` is `sammy-agent VERB …`, to the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cc_sammy.common.agent_commands import AGENT_COMMANDS
from sammy_agent.cli.arguments import join_negative_values

TOP = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with both commands."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (("sammy", "cc_sammy.cli"), ("sammy-agent", "sammy_agent")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    return str(folder)


def run(path: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "PYTHONPATH": str(TOP), "COLUMNS": "120"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_the_agents_verbs_with_the_same_words(path: str) -> None:
    ours, agents = run(path, "sammy", "--help"), run(path, "sammy-agent", "--help")
    assert ours.returncode == agents.returncode == 0
    for name, meaning in AGENT_COMMANDS.items():
        for text in (ours.stdout, agents.stdout):
            assert f"{name} {meaning}" in " ".join(text.split())


def test_a_verbs_own_help_is_the_agents(path: str) -> None:
    answer = run(path, "sammy", "events", "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == run(path, "sammy-agent", "events", "--help").stdout
    assert "--since TIME" in answer.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("events", "--no-such"), 2, "unrecognized arguments: --no-such"),
        (("token",), 2, "required: action"),
        (("outbox", "burn"), 2, "invalid choice: 'burn'"),
        (("logs", "--since"), 2, "expected one argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_option_is_told_by_the_agent(path: str, words: tuple[str, ...], status: int, said: str) -> None:
    answer = run(path, "sammy", *words)
    assert (answer.returncode, answer.stdout) == (status, "")
    assert said in answer.stderr


def test_a_time_before_now_is_taken_as_a_value(path: str, tmp_path: Path) -> None:
    """Nothing is stored below this root, so the status is 3; 2 would be a refused option."""
    for words in (("--since", "-5m"), ("--since=-5m",)):
        answer = run(path, "sammy", "metrics", *words, "--root", str(tmp_path))
        assert answer.returncode == 3, answer.stderr


def test_without_the_agent_the_next_step_is_told(path: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "cc_sammy.cli", "events"],
        env={"PATH": "/nonexistent", "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == "sammy: there is no sammy-agent on this machine. Install the package sammy-agent\n"


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["events", "--since", "-5m"], ["events", "--since=-5m"]),
        (["events", "-n", "-5"], ["events", "-n-5"]),
        (["events", "--since=-5m", "-f"], ["events", "--since=-5m", "-f"]),
        (["events", "--since", "-5m", "-f"], ["events", "--since=-5m", "-f"]),
        (["outbox", "requeue", "-5"], ["outbox", "requeue", "-5"]),
        (["logs", "--search", "--", "-5m"], ["logs", "--search", "--", "-5m"]),
        (["logs", "--search", "-x5"], ["logs", "--search", "-x5"]),
        ([], []),
    ],
    ids=" ".join,
)
def test_only_a_negative_number_behind_an_option_is_joined(words: list[str], joined: list[str]) -> None:
    assert join_negative_values(words) == joined
