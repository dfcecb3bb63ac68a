# SPDX-License-Identifier: Apache-2.0
"""The manual pages and the journal's catalog against what they describe."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy.common.agent_commands import AGENT_COMMANDS
from cc_sammy.contract import journal_fields, schema
from cc_sammy.steps import declared
from tests.package.chroot import TOP

MAN = TOP / "packaging" / "man"
CATALOG = TOP / "packaging" / "catalog" / "sammy.catalog"


def page(path: Path) -> str:
    """Return a manual page as a reader sees it, on one line."""
    shown = subprocess.run(
        ["man", "--local-file", str(path)],
        capture_output=True, text=True, check=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "1000", "MANROFFSEQ": ""},
    ).stdout  # fmt: skip
    return " ".join(re.sub(r".\x08", "", shown).split())


def parser(module: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return a command's parser: the one that the command itself parses with."""
    caught: list[argparse.ArgumentParser] = []

    def catch(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        caught.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", catch)
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module(module).main(["--help"])
    return caught[0]


def verbs(parser: argparse.ArgumentParser, so_far: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield each verb that can be run, with its long options; one that asks for another below it cannot."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from verbs(child, f"{so_far} {name}".strip())
    if so_far and not any(action.required for action in below):
        options = {text for action in parser._actions for text in action.option_strings if text.startswith("--")}
        yield so_far, options - {"--help"}


@pytest.fixture(scope="session")
def sammy_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    filled = tmp_path_factory.mktemp("man") / "sammy.1"
    command = [sys.executable, "packaging/man/variables.py", "packaging/man/sammy.1"]
    filled.write_bytes(subprocess.run(command, cwd=TOP, capture_output=True, check=True).stdout)
    return page(filled)


@pytest.mark.parametrize(
    ("module", "file"),
    [("cc_sammy.cli.main", "sammy.1"), ("sammy_agent.cli.main", "sammy-agent.8")],
    ids=["sammy", "agent"],
)
def test_page_has_exactly_the_verbs_and_options_of_the_command(
    module: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = file.partition(".")[0]
    text = page(MAN / file)
    synopsis = text.partition("SYNOPSIS")[2].partition("DESCRIPTION")[0]
    described = text.partition("DESCRIPTION")[2]  # verbs and options, each explained
    known = parser(module, monkeypatch)
    found = dict(verbs(known))
    if command == "sammy":  # it hands these over, so their options are the agent's
        agents = dict(verbs(parser("sammy_agent.cli.main", monkeypatch)))
        found |= {name: agents[name] - {"--root"} for name in AGENT_COMMANDS}
    assert found
    for verb, options in found.items():
        assert re.search(rf"\b{verb.split()[-1]}\b", synopsis), f"{command} {verb} is not in the synopsis"
        assert f" {verb} " in described, f"{command} {verb} is not described"
        for option in options:
            assert option in synopsis and option in described, f"{command} {verb} {option} is not in {file}"
    top = {text for action in known._actions for text in action.option_strings if text.startswith("--")}
    documented = set(re.findall(r"--[a-z][a-z-]*", synopsis))
    assert documented <= {option for options in found.values() for option in options} | top
    named = set(re.findall(rf"\b{command} ([a-z][a-z-]*)", synopsis))
    assert named <= {verb.split()[0] for verb in found}, f"{file} names verbs that {command} does not have"


def test_page_names_every_exit_status() -> None:
    listed = page(MAN / "sammy.1").partition("EXIT STATUS")[2].partition("OPTIONS OF THE KEY")[0]
    assert re.findall(r"(?:^| )([0-9]) [A-Z]", listed) == ["0", "1", "2", "3"]


def test_built_page_has_every_option_and_variable(sammy_page: str) -> None:
    for path, child in schema.options(schema.load()):
        assert f" {'.'.join(path)}, {schema.variable(path)} " in sammy_page
        assert " ".join(child.get("description", "").split()) in sammy_page


@pytest.mark.parametrize("file", ["sammy.1", "sammy-agent.8"])
def test_page_has_no_roff_warnings(file: str) -> None:
    checked = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--local-file", str(MAN / file)],
        capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )  # fmt: skip
    assert checked.stderr == ""


def test_catalog_explains_each_message_and_no_other() -> None:
    ids = {
        value
        for name, value in vars(journal_fields).items()
        if name.isupper() and re.fullmatch("[0-9a-f]{32}", str(value))
    }
    ids |= set(journal_fields.MESSAGE_ID.values())
    listed = re.findall(r"^-- (\S+)$", CATALOG.read_text(), re.M)
    assert sorted(listed) == sorted(ids)


def test_catalog_is_valid_and_names_only_fields_that_are_sent(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (folder / "sammy.catalog").write_bytes(CATALOG.read_bytes())
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    made = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stderr) == (0, "")
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) == len(re.findall(r"^-- ", CATALOG.read_text(), re.M))
    sent = {*journal_fields.STEP_FIELDS, "SAMMY_DURATION_MS", "SAMMY_REASON"}
    assert set(re.findall(r"@(\w+)@", CATALOG.read_text())) <= sent


def test_the_page_of_the_boot_steps_has_each_with_what_it_needs() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (?:`([a-z-]+)`)? ?\|", (TOP / "docs/provisioning.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {step.name: "".join(step.needs) for step in declared(swap_is_applicable=True)}
