# SPDX-License-Identifier: Apache-2.0
"""The transport on the oldest, a middle and the newest requests and urllib3, beside Debian's own.

The packages are installed into environments under build/transport/, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.network import churn_scenarios as scenarios
from tests.network.churn_scenarios import Kind
from tests.quiet_machine import timed

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {
    "requests-2.25.1-urllib3-1.26.5": ["requests==2.25.1", "urllib3==1.26.5", "chardet==4.0.0"],
    "requests-2.32.3-urllib3-2.3.0": ["requests==2.32.3", "urllib3==2.3.0"],
    "newest": ["requests", "urllib3"],
}


def interpreter(name: str) -> str:
    """Return an interpreter with these versions; its other packages are the system's."""
    folder = ROOT / "build" / "transport" / f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}"
    python, ready = str(folder / "bin" / "python"), folder / "ready"
    if not ready.exists():
        venv.create(folder, system_site_packages=True, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-installed"]
        done = subprocess.run([*pip, *VERSIONS[name]], check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"pip could not install {VERSIONS[name]}: {done.stderr}"
        ready.touch()
    return python


@pytest.mark.parametrize("name", VERSIONS)
def test_faults_sessions_and_remounts(name: str) -> None:
    argv = [interpreter(name), "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    parts = ("test_response", "test_transport_faults", "test_transport_session", "test_transport_stress")
    files = [f"tests/unit/transport/{part}.py" for part in parts]
    done = subprocess.run([*argv, *files], check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.needs("root")
@timed
def test_none_loses_a_beat() -> None:
    kinds = [Kind(name, "ours", python=interpreter(name)) for name in VERSIONS]
    what = ("nat_forgets", "firewall_rewritten")
    for beats in scenarios.changes(kinds, beats=24, what=what, at=(5.97, 13.97)):
        assert (beats.lost, beats.errors) == (0, ()), str(beats)
        assert beats.longest_gap < 2.0 + beats.stall, str(beats)


def test_the_environments_are_what_they_say() -> None:
    program = "import requests, urllib3; print(requests.__version__, urllib3.__version__)"
    for name in ("requests-2.25.1-urllib3-1.26.5", "requests-2.32.3-urllib3-2.3.0"):
        done = subprocess.run(
            [interpreter(name), "-W", "ignore", "-c", program], check=True, capture_output=True, text=True, env=_clean()
        )
        assert done.stdout.split() == [name.split("-")[1], name.split("-")[3]]


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
