# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sammy_agent.base.errors import AgentError, TokenUnusable
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.cli import token as token_verb
from sammy_agent.daemon.credentials.node_token import NodeTokenStore, source_wins
from sammy_agent.daemon.credentials.tokens import NodeToken, Token
from sammy_agent.node.config import AgentConfig


def jwt_like(**claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(str(tmp_path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "callback-token"


@pytest.fixture
def identity(paths: Paths, source: Path) -> NodeTokenStore:
    return NodeTokenStore(paths, AgentConfig("n1", "https://x", str(source), None, 8443, True))


def kept(paths: Paths) -> str:
    return Path(paths.token).read_text().strip()


def test_a_token_tells_its_times_and_hides_its_text() -> None:
    text = jwt_like(iat=100, exp=200, scope="node", sub="n1")
    token = Token.parse(f"  {text}\n")
    assert (token.issued, token.expires, token.scope, token.subject) == (100, 200, "node", "n1")
    assert text not in repr(token)
    assert not token.is_expired(199.9) and token.is_expired(200)


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "a.!!.c", "e30.W10.x", jwt_like(iat="1", exp=True, sub=5)])
def test_a_token_that_says_nothing_about_itself_is_one_all_the_same(text: str) -> None:
    assert Token.parse(text) == Token(text)
    assert not Token.parse(text).is_expired(1e12)


@pytest.mark.parametrize("text", ["", " \n", "two words", "line\r\nX-Evil: 1", "naïve", "x" * 20000])
def test_what_would_break_a_header_is_no_token(text: str) -> None:
    with pytest.raises(TokenUnusable):
        Token.parse(text)


OLD, NEW, BARE = NodeToken("old", issued=1.0), NodeToken("new", issued=2.0), NodeToken("bare")


@pytest.mark.parametrize(
    ("own", "source", "began_with", "wins"),
    [
        (None, None, None, False),
        (None, OLD, None, True),
        (None, OLD, OLD.digest(), True),  # ours was lost: the first is better than none
        (OLD, None, None, False),
        (OLD, NEW, None, True),
        (NEW, OLD, None, False),
        (OLD, NEW, NEW.digest(), False),  # cloud-init wrote the same user-data again
        (OLD, OLD, None, False),
        (OLD, BARE, None, False),
        (BARE, OLD, None, True),
    ],
)
def test_the_user_datas_token_only_if_absent_or_older(
    own: NodeToken | None, source: NodeToken | None, began_with: str | None, wins: bool
) -> None:
    assert source_wins(own, source, began_with) is wins


def test_the_first_token_is_taken_over_and_private(identity: NodeTokenStore, paths: Paths, source: Path) -> None:
    assert identity.reload() is None
    problem = identity.problem()
    assert problem is not None and problem.code == "no-token"
    source.write_text(jwt_like(iat=1, sub="n1") + "\n")
    token = identity.reload()
    assert token is not None and kept(paths) == token.text
    assert Path(paths.token).stat().st_mode & 0o777 == 0o600
    assert identity.problem() is None


def test_a_renewed_token_outlives_the_process_and_the_same_user_data(
    identity: NodeTokenStore, paths: Paths, source: Path
) -> None:
    source.write_text(jwt_like(iat=100, sub="n1"))
    identity.reload()
    renewed = jwt_like(iat=50, sub="n1", scope="node")  # its clock was ahead before: the answer counts all the same
    identity.refresh(renewed)
    again = NodeTokenStore(paths, AgentConfig("n1", "https://x", str(source), None, 8443, True))
    token = again.reload()
    assert token is not None and token.text == renewed == kept(paths)


@pytest.mark.parametrize("claims", [{"sub": "n2"}, {"sub": "n1", "scope": "workspace"}])
def test_a_token_for_somebody_else_is_not_taken(identity: NodeTokenStore, source: Path, claims: dict[str, Any]) -> None:
    source.write_text(jwt_like(iat=1, sub="n1"))
    before = identity.reload()
    with pytest.raises(TokenUnusable):
        identity.refresh(jwt_like(iat=2, **claims))
    assert identity.token() == before


def test_a_damaged_file_leaves_the_token_in_memory(identity: NodeTokenStore, paths: Paths, source: Path) -> None:
    source.write_text(jwt_like(iat=1, sub="n1"))
    before = identity.reload()
    Path(paths.token).write_text("two words")
    source.unlink()
    assert identity.reload() == before
    problem = identity.problem()
    assert problem is not None and problem.code == "token-unusable"


def configured(paths: Paths) -> None:
    path = Path(paths.config)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"node_id": "n1", "control_plane_url": "https://x"}))


def test_token_set_keeps_it_for_the_next_start(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    configured(paths)
    text = jwt_like(sub="n1", scope="node")
    assert token_verb.set_token(StringIO(text + "\n"), paths.root) == 0
    assert kept(paths) == text and Path(paths.token).stat().st_mode & 0o777 == 0o600
    out = capsys.readouterr().out
    assert "does not run" in out and text not in out


@pytest.mark.parametrize("text", ["", jwt_like(sub="n2"), jwt_like(sub="n1", scope="workspace")])
def test_token_set_refuses_what_cannot_work(paths: Paths, text: str) -> None:
    configured(paths)
    with pytest.raises(TokenUnusable):
        token_verb.set_token(StringIO(text), paths.root)
    assert not Path(paths.token).exists()


def test_token_set_without_a_control_plane(paths: Paths) -> None:
    with pytest.raises(AgentError, match="names no control plane"):
        token_verb.set_token(StringIO("x"), paths.root)


@pytest.mark.parametrize("claims", [{"exp": 10**400}, {"exp": -1}, {"iat": float("nan")}, {"exp": 1e300}])
def test_times_that_no_clock_can_show_are_no_times(claims: dict[str, Any]) -> None:
    token = Token.parse(jwt_like(**claims))
    assert token.issued is None and token.expires is None
