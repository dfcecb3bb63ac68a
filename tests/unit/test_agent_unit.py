# SPDX-License-Identifier: Apache-2.0
"""The agent's systemd unit lets it do what the code does: a family of sockets that is left out fails far from here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).parents[2]
UNIT = TREE / "packaging/systemd/sammy-agent.service"


def families_of(source: str) -> set[str]:
    """Return the families of sockets that a module names, as socket.AF_X or imported."""
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return {name for name in names if re.fullmatch(r"AF_[A-Z0-9]+", name)}


def product() -> Iterator[Path]:
    for package in ("sammy_agent", "cc_sammy"):  # the agent starts the firewall's program and the boot tool's commands
        yield from (TREE / package).rglob("*.py")


def test_the_unit_allows_the_families_of_sockets_that_the_code_opens_and_no_others() -> None:
    (allowed,) = re.findall(r"(?m)^RestrictAddressFamilies=(.*)$", UNIT.read_text())
    opened = {family for path in product() for family in families_of(path.read_text())}
    assert set(allowed.split()) == opened
    assert "AF_PACKET" in opened, "the firewall's dry run sends packets"


def test_a_family_is_found_however_it_is_named() -> None:
    assert families_of("import socket\nsocket.socket(socket.AF_VSOCK)") == {"AF_VSOCK"}
    assert families_of("from socket import AF_CAN, socket\nsocket(AF_CAN)") == {"AF_CAN"}
    assert families_of("AFTER = 1; x.AF = 2") == set()
