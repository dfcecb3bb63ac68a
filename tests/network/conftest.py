# SPDX-License-Identifier: Apache-2.0
"""The firewall's surroundings, made once a file: a machine, an edge inside the allowed ranges, a stranger outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.network.firewall_lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        made.build()
        yield made
    finally:
        made.close()
