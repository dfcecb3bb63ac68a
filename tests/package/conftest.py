# SPDX-License-Identifier: Apache-2.0
"""The packages, built once a session, and throw-away chroots to install them in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.chroot import TOP, Chroot, tree


@pytest.fixture(scope="session")
def debs() -> dict[str, Path]:
    """The built packages by name."""
    built = subprocess.run([TOP / "packaging" / "build-deb"], check=False, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return {Path(line).name.partition("_")[0]: Path(line) for line in built.stdout.splitlines()}


@pytest.fixture
def chroot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chroot]:
    """A fresh bookworm, or the suite given as the fixture's parameter, with all dependencies and no sammy."""
    with Chroot(tree(getattr(request, "param", "bookworm")), tmp_path / "chroot") as made:
        yield made


@pytest.fixture
def installed(chroot: Chroot, debs: dict[str, Path]) -> Chroot:
    """The chroot with the three packages."""
    chroot.install(*debs.values())
    return chroot
