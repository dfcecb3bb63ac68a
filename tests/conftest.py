# SPDX-License-Identifier: Apache-2.0
"""What a test may need of the machine; a lack is a skip for a person and a failure under SAMMY_REQUIRE=all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether the code is right. The same examples each time, so
# that a run's verdict is of the change; SAMMY_HYPOTHESIS=random looks for others, and keeps in .hypothesis what failed.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("SAMMY_HYPOTHESIS") or "same")

LACKS: dict[str, Callable[[], str | None]] = {
    "root": lambda: None if os.geteuid() == 0 else "needs root (run it with sudo)",
    "nspawn": lambda: None if shutil.which("systemd-nspawn") else "needs systemd-nspawn (apt: systemd-container)",
    "dockerd": lambda: None if shutil.which("dockerd") else "needs dockerd (apt: docker.io)",
    "qemu": lambda: None if shutil.which("qemu-system-x86_64") else "needs qemu (apt: qemu-system-x86)",
    "journald": lambda: None if os.path.exists("/lib/systemd/systemd-journald") else "needs systemd-journald",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for what in marker.args:
            lack = LACKS[what]()
            if lack and os.environ.get("SAMMY_REQUIRE") == "all":
                pytest.fail(f"{what}: {lack}", pytrace=False)
            elif lack:
                pytest.skip(lack)


@pytest.fixture(autouse=True)
def umask_left_as_found() -> Iterator[None]:
    """The umask is the whole process's: once left at 077 by two threads, it made every later machine's / unreadable."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    after = os.umask(before)
    assert after == before, f"the test left the umask at {after:03o}"
