# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sammy_agent.base.errors import TokenUnusable
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.credentials.workspace_tokens import WorkspaceTokens, WorkspaceUnknown


def token(**claims: Any) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{middle}.c2ln"


@pytest.fixture
def tokens(tmp_path: Path) -> WorkspaceTokens:
    return WorkspaceTokens(Paths(str(tmp_path)))


def test_a_token_is_on_disk_privately_and_found_by_the_next_agent(tokens: WorkspaceTokens, tmp_path: Path) -> None:
    tokens.store("w1", token(sub="w1", scope="workspace", exp=2000))
    assert os.stat(tokens.path("w1")).st_mode & 0o777 == 0o600
    other = WorkspaceTokens(Paths(str(tmp_path)))
    other.reload()
    assert other.token("w1") == tokens.token("w1") and other.token("w2") is None
    assert other.snapshot(2000.0) == {"w1": {"state": "expired", "expires": "1970-01-01T00:33:20+00:00"}}
    assert "e30" not in repr(other) + repr(other.token("w1"))


@pytest.mark.parametrize("claims", [{"sub": "w2"}, {"scope": "node"}, {"sub": "n1", "scope": "node"}])
def test_somebody_elses_token_is_never_taken(tokens: WorkspaceTokens, claims: dict[str, Any]) -> None:
    tokens.store("w1", token(sub="w1"))
    kept = tokens.token("w1")
    with pytest.raises(TokenUnusable):
        tokens.store("w1", token(**claims))
    tokens.refresh("w1", token(**claims))
    assert tokens.token("w1") == kept
    Path(tokens.path("w1")).write_text(token(**claims))
    tokens.reload()
    assert tokens.token("w1") == kept, "nor from its file"


@pytest.mark.parametrize("workspace", ["", "../w1", "a/b", ".hidden", "x" * 129])
def test_an_id_is_never_a_path(tokens: WorkspaceTokens, workspace: str) -> None:
    with pytest.raises(WorkspaceUnknown):
        tokens.store(workspace, token())


def test_what_the_disk_refuses_is_used_and_saved_when_it_takes_it(tokens: WorkspaceTokens, tmp_path: Path) -> None:
    folder = Path(Paths(str(tmp_path)).workspaces)
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    with pytest.raises(OSError, match="workspaces"):
        tokens.store("w1", token(sub="w1"))
    assert tokens.token("w1") is not None
    tokens.refresh("w1", token(sub="w1", iat=5))
    tokens.reload()
    assert (tokens.token("w1") or token).issued == 5.0  # type: ignore[union-attr]
    folder.unlink()
    tokens.reload()
    assert Path(tokens.path("w1")).read_text().strip() == token(sub="w1", iat=5)
