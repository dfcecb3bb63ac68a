# SPDX-License-Identifier: Apache-2.0
"""What cloud-init pays for us on every boot of every machine, and that its two ways of calling both arrive."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

import cc_sammy
from cc_sammy.engine import provision


def modules_after(statement: str) -> set[str]:
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_module_imports_nothing_but_itself() -> None:
    assert modules_after("import cc_sammy") <= {"cc_sammy", "__future__"}


def test_the_detector_sees_an_import() -> None:
    assert "json" in modules_after("import json")


def test_without_the_key_nothing_is_loaded_and_one_debug_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cc_sammy.handle("sammy", {}, None, logging.getLogger(), [])
    assert [record.getMessage() for record in caplog.records] == [
        "Skipping module named sammy, no 'sammy' key in configuration"
    ]
    loaded = modules_after("import cc_sammy; cc_sammy.handle('sammy', {}, None, None, [])")
    assert "cc_sammy.engine.provision" not in loaded


@pytest.mark.parametrize("way", ["positional, to 23.1", "keywords, from 23.2"])
def test_both_ways_of_calling_arrive(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any, Any]] = []
    monkeypatch.setattr(provision, "from_cloud_init", lambda name, cfg, cloud, cpu: seen.append((name, cfg, cloud)))
    cfg: dict[str, Any] = {"sammy": {}}
    if way.startswith("positional"):
        cc_sammy.handle("sammy", cfg, "the cloud", logging.getLogger(), [])
    else:
        cc_sammy.handle("sammy", cfg, cloud="the cloud", args=[])
    assert seen == [("sammy", cfg, "the cloud")]


def test_the_signature_is_not_the_one_cloud_init_takes_for_the_old_style() -> None:
    import inspect

    assert len(inspect.signature(cc_sammy.handle).parameters) != 5
    assert not hasattr(cc_sammy, "schema")
    assert cc_sammy.meta["frequency"] == "always"
    assert cc_sammy.meta["distros"] == ["all"]
