# SPDX-License-Identifier: Apache-2.0
"""`sammy validate` and the command's own door, by their words and statuses."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest

from cc_sammy.cli import validate
from cc_sammy.cli.main import main
from cc_sammy.common import files
from cc_sammy.contract import paths

VALID = "#cloud-config\nsammy:\n  node_id: node-7\n  firewall: {allow: [203.0.113.0/24]}\n"
WRONG = "#cloud-config\nsammy:\n  node_id: 'no id!'\n  agent: {port: ninety}\n  fierwall: {}\n"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable SAMMY_* of whoever runs the tests would be part of the configuration."""
    for name in [name for name in os.environ if name.startswith("SAMMY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "user-data"
    path.write_text(VALID)
    return path


def test_a_valid_document_is_0(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(document)]) == 0
    assert capsys.readouterr() == (f"{document} is valid\n", "")
    assert main(["validate", "--json", str(document)]) == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "problems": []}


def test_every_error_is_told_at_once(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document.write_text(WRONG)
    assert main(["validate", str(document)]) == 1
    said = capsys.readouterr()
    first, *problems = said.err.splitlines()
    assert said.out == "" and first == f"{document} is not valid:"
    assert len(problems) == 3 and all(line.startswith("  ") for line in problems)
    assert all(any(name in line for line in problems) for name in ("node_id", "agent.port", "fierwall"))
    assert main(["validate", "--json", str(document)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"valid": False, "problems": [line.strip() for line in problems]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("sammy: [", "is not YAML"),
        ("#cloud-config\npackages: []\n", "has no top-level key sammy:. Without it cloud-init-sammy does nothing"),
        ("- sammy\n", "has no top-level key sammy:"),
    ],
    ids=["none", "no YAML", "no key", "a list"],
)
def test_what_is_no_document_of_ours_is_1_and_says_why(
    document: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    if text is None:
        document.unlink()
    else:
        document.write_text(text)
    assert main(["validate", str(document)]) == 1
    assert words in capsys.readouterr().err


def test_a_variable_can_make_a_document_wrong(
    document: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMMY_AGENT_PORT", "ninety")
    assert main(["validate", str(document)]) == 1
    assert 'sammy.agent.port is "ninety"' in capsys.readouterr().err


def test_without_a_file_it_is_this_machines_with_its_overrides(
    document: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {paths.OVERRIDES: "SAMMY_AGENT_PORT=0\n"}
    monkeypatch.setattr(validate, "INSTANCE", str(document))
    monkeypatch.setattr(files, "read_text", lambda path: overrides.get(path) or Path(path).read_text())
    assert main(["validate"]) == 1
    assert "agent.port" in capsys.readouterr().err
    other = document.with_name("other")
    other.write_text(VALID)
    assert main(["validate", str(other)]) == 0, "another machine's document is judged without them"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["--help"], 0, "validate"), (["nonsense"], 2, "invalid choice"), ([], 2, "usage: sammy")],
)
def test_python_m_is_the_command(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sammy", *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("cc_sammy.cli", run_name="__main__")
    shown = capsys.readouterr()
    assert left.value.code == status and said in shown.out + shown.err


def test_python_m_hands_the_verbs_status_on(
    document: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, status in ((VALID, 0), (WRONG, 1)):
        document.write_text(text)
        monkeypatch.setattr("sys.argv", ["sammy", "validate", str(document)])
        with pytest.raises(SystemExit) as left:
            runpy.run_module("cc_sammy.cli", run_name="__main__")
        assert left.value.code == status
