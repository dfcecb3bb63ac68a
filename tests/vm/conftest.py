# SPDX-License-Identifier: Apache-2.0
"""Machines for the tests: our packages built once, Debian's tree made once, each disk thrown away at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Base, debian
from tests.vm.boots import Boot, built, full_boot


@pytest.fixture(scope="session")
def debs() -> list[Path]:
    """Our three packages; a machine's image has two, the agent's comes from the apt repository as on a real boot."""
    packages = built()
    assert [deb.name.partition("_")[0] for deb in packages] == ["cloud-init-sammy", "sammy-agent", "sammy-common"]
    return packages


@pytest.fixture(scope="session")
def tree() -> Base:
    return debian("bookworm")


@pytest.fixture(scope="module")
def booted(tree: Base, debs: list[Path]) -> Iterator[Boot]:
    """A machine that has gone through one full boot, every step real."""
    with full_boot("boot", tree, debs) as boot:
        yield boot
