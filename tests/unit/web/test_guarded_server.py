# SPDX-License-Identifier: Apache-2.0
"""How many connections a process's limit of files leaves room for."""

from __future__ import annotations

import resource
import sys

import pytest

from sammy_agent.base.web.guarded_server import RESERVED_DESCRIPTORS, raise_descriptor_limit


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, refused: Exception | None = None) -> list[object]:
    """Let the process have these limits; return those that it sets."""
    found: list[object] = []

    def setrlimit(what: int, wanted: tuple[int, int]) -> None:
        if refused is not None:
            raise refused
        found.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return found


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = limits(monkeypatch, 1024, 524_288)
    assert raise_descriptor_limit() == 524_288 - RESERVED_DESCRIPTORS
    assert found == [(524_288, 524_288)]


def test_without_a_limit_there_is_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 1024, resource.RLIM_INFINITY)
    assert raise_descriptor_limit() == sys.maxsize


def test_a_limit_that_may_not_be_raised_is_kept_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits(monkeypatch, 1024, 524_288, PermissionError(1, "Operation not permitted"))
    assert raise_descriptor_limit() == 1024 - RESERVED_DESCRIPTORS
    assert "stays at 1024" in caplog.text


def test_a_tiny_limit_still_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 20, 20)
    assert raise_descriptor_limit() == 16
