# SPDX-License-Identifier: Apache-2.0
"""The firewall's program by its path, as the agent runs it: it is there, and starts without what it does not need."""

from __future__ import annotations

import os
import subprocess

from cc_sammy.contract import paths

TOP = os.path.dirname(os.path.dirname(os.path.dirname(paths.FIREWALL[-1])))
# each takes 3 to 15 ms of a start that takes 20; argparse and the schema's validator come only with what needs them
DEAR = {"argparse", "ast", "asyncio", "dataclasses", "inspect", "jsonschema", "logging", "requests", "site", "yaml"}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd="/")


def test_it_runs_by_its_path_without_site_packages() -> None:
    helped = run(*paths.FIREWALL, "--help")
    assert helped.returncode == 0
    assert "repair" in helped.stdout and "roll-back" not in helped.stdout
    assert run(*paths.FIREWALL, "nonsense").returncode == 2


def test_it_imports_nothing_dear() -> None:
    program = f"import sys; sys.path.insert(0, {TOP!r}); {{}}; print(*sys.modules)"
    modules = (
        "commands", "backends.nftables", "model.policy", "backends.foreign_rules", "backends.drift", "rollback",
    )  # fmt: skip
    started = f"import {', '.join(f'cc_sammy.firewall.{name}' for name in ('__main__', *modules))}"
    loaded = set(run(*paths.FIREWALL[:-1], "-c", program.format(started)).stdout.split())
    assert "cc_sammy.firewall.__main__" in loaded
    assert not loaded & DEAR
    seen = set(run(*paths.FIREWALL[:-1], "-c", program.format("import dataclasses, argparse")).stdout.split())
    assert {"dataclasses", "inspect", "argparse"} <= seen, "the detector is blind"
