# SPDX-License-Identifier: Apache-2.0
"""The node's token: where it comes from, which one is used, and when it expires.

The user-data's token is only the first. The control plane renews it in its answers, and the renewed one is kept on
disk: SAM's agent kept it in memory and was locked out by every restart after a day (its finding H1). Expiry by this
machine's clock is shown, but never a reason to stop sending: first boots have wrong clocks.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from sammy_agent.base.errors import Code, Problem, TokenUnusable
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime import files, state_file
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire.claims import NODE_SCOPE
from sammy_agent.daemon.credentials.tokens import NEW_TOKEN_HINT, NodeToken
from sammy_agent.node.config import AgentConfig

LOG = logging.getLogger(__name__)


def source_wins(own: NodeToken | None, source: NodeToken | None, began_with: str | None) -> bool:
    """Return whether the user-data's token replaces the one in use.

    Only if there is none, or it is another than the one that ours began with and was issued later: cloud-init may
    write the same user-data again at any boot, and a control plane's clock may have been ahead.
    """
    if source is None:
        return False
    if own is None:
        return True
    if source.digest() == began_with or source.text == own.text:
        return False
    return source.issued is not None and (own.issued is None or source.issued > own.issued)


class NodeTokenStore:
    """The node's id, and its token with the files it is kept in. Thread-safe."""

    def __init__(self, paths: Paths, config: AgentConfig, record: RecordEvent = discard_event) -> None:
        self._paths, self._config, self._record = paths, config, record
        self._lock = threading.Lock()
        self._token: NodeToken | None = None
        self._problem: Problem | None = None
        self._unsaved = False

    def __repr__(self) -> str:
        return f"<NodeTokenStore {self._config.node_id}, {'a' if self._token else 'no'} token>"

    @property
    def node_id(self) -> str:
        """The node's id."""
        return self._config.node_id

    def token(self) -> NodeToken | None:
        """Return the token in use."""
        with self._lock:
            return self._token

    def problem(self) -> Problem | None:
        """Return the problem of the token's files, if any."""
        with self._lock:
            return self._problem

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return the `token` part of the socket's status, at `now` by the control plane's clock."""
        token, problem = self.token(), self.problem()
        state = "missing" if token is None else "expired" if token.is_expired(now) else "ok"
        return {
            "state": state,
            "issued": iso(token.issued) if token else None,
            "expires": iso(token.expires) if token else None,
            "seconds_left": round(token.expires - now, 1) if token and token.expires is not None else None,
            "problem": problem.to_json() if problem else None,
        }

    def reload(self) -> NodeToken | None:
        """Read the files again and return the token to use; one that could not be saved is saved first."""
        with self._lock:
            if self._unsaved and self._token is not None:
                self._save(self._token)
            else:
                self._problem = None
                self._read()
            return self._token

    def refresh(self, text: str) -> None:
        """Use the refreshed token of an answer, whatever this machine's clock says.

        :raises TokenUnusable: it is not a valid token, or another node's.
        """
        token = NodeToken.parse(text)
        if token.subject not in (None, self._config.node_id) or token.scope not in (None, NODE_SCOPE):
            raise TokenUnusable(f"the control plane sent a token of {token.subject}, scope {token.scope}")
        with self._lock:
            refreshed = self._token is None or token.text != self._token.text
            if refreshed:
                self._token = token
                self._save(token)
        if refreshed:
            until = f", good until {iso(token.expires)}" if token.expires else ""
            self._record(kinds.TOKEN_REFRESHED, f"the control plane refreshed the token{until}")

    def _read(self) -> None:
        own = self._read_token(self._paths.token)
        source = self._read_token(self._config.token_file) if self._config.token_file else None
        began_with = state_file.load_text(self._paths.token_source)
        if isinstance(began_with, Problem):
            self._problem, began_with = began_with, None
        if source_wins(own, source, began_with):
            assert source is not None  # source_wins says so
            self._token = source
            self._save(source, began_with=source.digest())
        elif own is not None:
            self._token = own
        # a token in memory outlives its files: they may be on a disk that went bad
        if self._token is None and self._problem is None:
            where = self._config.token_file or "sammy.control_plane.token_file is not set"
            self._problem = Problem(Code.NO_TOKEN, f"this node has no token ({where})", NEW_TOKEN_HINT)

    def _read_token(self, path: str) -> NodeToken | None:
        try:
            text = files.read(path)
            return None if text is None else NodeToken.parse(text)
        except OSError as error:
            self._problem = Problem(Code.TOKEN_UNREADABLE, f"{path}: {error.strerror}", "Check the disk: dmesg, df")
        except TokenUnusable as error:
            self._problem = error.problem._replace(text=f"{path}: {error.problem.text}")
        return None

    def _save(self, token: NodeToken, *, began_with: str | None = None) -> None:
        try:
            files.write(self._paths.token, token.text + "\n", mode=files.PRIVATE)
            if began_with is not None:
                files.write(self._paths.token_source, began_with, mode=files.PRIVATE)
        except OSError as error:
            if not self._unsaved:
                LOG.warning("the token could not be saved (%s); it is kept in memory and saved later", error.strerror)
            self._unsaved = True
            self._problem = Problem(
                Code.TOKEN_UNSAVED, f"{self._paths.token} cannot be written: {error.strerror}", "Make room: df -h /var"
            )
        else:
            self._unsaved, self._problem = False, None
