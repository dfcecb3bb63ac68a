# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent token set`: a node's way out when its token expired while it was off; with --workspace a workspace's.

Reads standard input, never an argument: arguments are seen by everyone on the machine and kept by shells.
"""

from __future__ import annotations

import getpass
from typing import TextIO

from sammy_agent.base.errors import AgentError, TokenUnusable
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.control_client import ask
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.daemon.credentials.tokens import MAX_TOKEN_CHARS, Token
from sammy_agent.daemon.credentials.workspace_tokens import WorkspaceTokens
from sammy_agent.node import config


def check(raw: str, node_id: str) -> Token:
    """Return the token. TokenUnusable when it is none or says that it is another node's or a workspace's."""
    token = Token.parse(raw)
    if token.subject is not None and token.subject != node_id:
        raise TokenUnusable(f"this token is for {token.subject}, this node is {node_id}")
    if token.scope not in (None, "node"):
        raise TokenUnusable(f"this token's scope is {token.scope}, a node's is node")
    return token


def set_token(source: TextIO, root: str, workspace: str | None = None) -> int:
    """Take the node's token, or a workspace's, keep it, tell the running agent; return the exit status."""
    paths = Paths(root)
    loaded = config.load(paths)
    if loaded is None:
        raise AgentError(f"{paths.config} names no control plane", "Set sammy.control_plane.url first")
    # a terminal would show it and keep it in its scroll-back
    raw = getpass.getpass("Token: ") if source.isatty() else source.read(MAX_TOKEN_CHARS + 1)
    try:
        if workspace is None:
            files.write(paths.token, check(raw, loaded.node_id).text + "\n", mode=files.PRIVATE)
        else:
            WorkspaceTokens(paths).store(workspace, raw)
    except PermissionError:
        raise
    except OSError as error:
        raise AgentError(f"{error.filename or paths.token}: {error.strerror}", "Make room: df -h /var") from error
    told = ask(paths.socket, "token-changed")
    print("token set; " + ("the agent uses it now" if told else "the agent does not run; it takes it when it does"))
    return 0
