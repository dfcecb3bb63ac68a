# SPDX-License-Identifier: Apache-2.0
"""What most of these tests begin with: a running control plane and a configured agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.lab import QUICK, Agent, ControlPlane, agent, control_plane


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture
def node(plane: ControlPlane, tmp_path: Path) -> Iterator[Agent]:
    """A configured agent of node n1, not yet started; n1 is new."""
    with agent(tmp_path) as one:
        one.configure(plane.add_node("n1", "--replace"), **QUICK)
        yield one
