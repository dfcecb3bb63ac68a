# SPDX-License-Identifier: Apache-2.0
"""The workspaces' tokens: one file per workspace, 0600, kept over restarts.

SAM's agent kept them in memory and overwrote them with the node's token after half a day: each later message was
answered 403, and deleted. Here a workspace's token is a type of its own, checked for whom it speaks before it is kept.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from sammy_agent.base.errors import AgentError, Code, TokenUnusable
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire.claims import WORKSPACE_SCOPE
from sammy_agent.base.wire.ids import ID_RULE, is_id
from sammy_agent.daemon.credentials.tokens import WorkspaceToken

LOG = logging.getLogger(__name__)
SUFFIX = ".token"


class WorkspaceUnknown(AgentError):
    """A text that is not a workspace id, so it must not become part of a path or an address."""

    code = Code.WORKSPACE_UNKNOWN


def check_id(workspace: object) -> str:
    """Return a workspace's id. WorkspaceUnknown when it is not a valid one."""
    if not is_id(workspace):
        raise WorkspaceUnknown(f"{workspace!r} is not a valid workspace id", ID_RULE)
    return workspace


def check(raw: str, workspace: str) -> WorkspaceToken:
    """Return the token. TokenUnusable when its claims name another workspace, or a node."""
    token = WorkspaceToken.parse(raw)
    if token.scope not in (None, WORKSPACE_SCOPE):
        raise TokenUnusable(f"this token's scope is {token.scope}, a workspace's is workspace")
    if token.subject not in (None, workspace):
        raise TokenUnusable(f"this token is for {token.subject}, not for {workspace}")
    return token


class WorkspaceTokens:
    """The tokens by workspace. Thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.workspaces
        self._lock = threading.Lock()
        self._tokens: dict[str, WorkspaceToken] = {}
        self._unsaved: set[str] = set()

    def __repr__(self) -> str:
        return f"<WorkspaceTokens of {len(self._tokens)} in {self._folder}>"

    def token(self, workspace: str) -> WorkspaceToken | None:
        """Return a workspace's token."""
        with self._lock:
            return self._tokens.get(workspace)

    def store(self, workspace: str, raw: str) -> None:
        """Store a token, on disk before anyone relies on it.

        :raises TokenUnusable: it is not a valid token, or another workspace's.
        :raises WorkspaceUnknown: the id is not valid.
        :raises OSError: the disk does not take it; it is in use all the same, and saved when it does.
        """
        workspace = check_id(workspace)
        token = check(raw, workspace)
        with self._lock:
            if self._tokens.get(workspace) == token and workspace not in self._unsaved:
                return
            self._tokens[workspace] = token
            self._unsaved.add(workspace)
            self._save(workspace)

    def refresh(self, workspace: str, raw: str) -> None:
        """Use the refreshed token of an answer; an invalid one is ignored, and a full disk is logged."""
        try:
            self.store(workspace, raw)
        except AgentError as error:
            LOG.warning("ignoring the refreshed token of workspace %s: %s", workspace, error)
        except OSError as error:
            LOG.warning("the refreshed token of workspace %s is not saved: %s", workspace, error.strerror)

    def reload(self) -> None:
        """Read the files again; unsaved tokens are saved first, and a token in memory outlives its file."""
        with self._lock:
            for workspace in sorted(self._unsaved):
                try:
                    self._save(workspace)
                except OSError as error:
                    LOG.warning("the token of workspace %s is not saved: %s", workspace, error.strerror)
            for workspace in self._listed():
                if workspace not in self._unsaved:
                    self._read(workspace)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return the state and the expiry of each token, at `now` by the control plane's clock."""
        with self._lock:
            return {
                workspace: {"state": "expired" if token.is_expired(now) else "ok", "expires": iso(token.expires)}
                for workspace, token in sorted(self._tokens.items())
            }

    def path(self, workspace: str) -> str:
        """Return where a workspace's token lies."""
        return os.path.join(self._folder, workspace + SUFFIX)

    def _save(self, workspace: str) -> None:
        files.write(self.path(workspace), self._tokens[workspace].text + "\n", mode=files.PRIVATE)
        self._unsaved.discard(workspace)

    def _listed(self) -> list[str]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))

    def _read(self, workspace: str) -> None:
        try:
            self._tokens[workspace] = check(files.read(self.path(workspace)) or "", workspace)
        except OSError as error:
            LOG.warning("%s: %s", self.path(workspace), error.strerror)
        except TokenUnusable as error:
            LOG.warning("%s: %s", self.path(workspace), error)
