# SPDX-License-Identifier: Apache-2.0
"""Root's control socket: one line per connection, `VERB ARGUMENT`, and one JSON object as the answer.

`network-changed REASON`: the connections are renewed and a heartbeat is sent.
`token-changed`: the token's files are read again (`sammy-agent token set` sends it).
`messages {"workspace", "messages": […]}`: messages of a workspace, as the wire writes them; likewise
`boot-log {"workspace", "entry"}`. Answered when they would survive a power cut; the same ids again have no effect.
`session-activity {"project", "session", "activity", …, "ended"}`: what an ACP session does, with the wire's further
fields. `say` and `activity` are the former names of `messages` and `session-activity`.
`outbox-requeue [ID, …]`: dead letters are sent again, without ids all.
`history`: the last 500 changes of network, connections and contact, oldest first:
{"ok": true, "changes": [{"at": ISO, "boottime_s": 12.3, "kind": "transport.remounted", "reason": "…"}], "forgotten":
0}.
`status`: the agent's state, below. Absent or null means not known.

    {"ok": true,
     "version": "0.1.0", "pid": 812,
     "node_id": "node-7", "control_plane_url": "https://…",        null without a control plane
     "config_problem": {code, text, next_step},                    null when the configuration is good
     "instance_id": "i-…",
     "contact": {"state": "never|ok|failing", "since": ISO, "last_beat": ISO, "last_beat_age_s": 12.1,
                 "failures": 0, "cause": {code, text, next_step},   cause: null unless failing
                 "clock_offset_s": 0.3,                             control plane's clock minus ours
                 "components": {"ready": {"last_success": ISO, "cause": …}, …}},
     "token": {"state": "ok|expired|missing", "issued": ISO, "expires": ISO, "seconds_left": 43200.0,
               "problem": {code, text, next_step}},                 problem: of its files
     "inbound": {"requests": 7, "visits": 3, "last": ISO, "last_age_s": 12.1, "last_peer": "192.0.2.1"},
     "server": {"state": "off|listening|serving", "port": 8443, "families": ["ipv4", "ipv6"], "connections": 0,
                "problem": {code, text, next_step}},                 listening: loaded by the first connection
     "firewall": {"repairs": 0, "lifted": false, "problem": ""},       problem: its rules were rolled back
     "ready": {"state": "waiting|posting|acknowledged", "acknowledged_at": ISO, "firewall_applied": true, "cause": …},
     "errors": {"unsent": 0},
     "packages": {"waiting": 0, "sent": 1, "problem": null},       debug packages; null where debug_push is false
     "outbox": {"rows": 0, "bytes": 0, "set_aside": 0, "dropped": 0, "trouble": {"messages ws-1": "hold: 401"}, …},
     "sessions": {"project/session": {"activity": "prompting|idle|recovering|error", "told": true}},
     "workspaces": {"ws-1": {"state": "ok|expired", "expires": ISO}},
     "provisioning": {"phase": "waiting|provisioning|ended", "outcome": "ready", "reason": "", "runId": "…"},
     "store": {"problem": "",                                      why events cannot be kept now
               "lost": 0,                                          events that never reached the disk
               "damage": ""},                                      what was found damaged, and where it lies
     "metrics": {"problem": "", "lost": 0},                        samples of metrics.db, one a minute
     "services": {"ready": {code, text, next_step}},               services that could not be started; retried
     "network_changes": ["docker-restart", …]}                      the last 100
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from sammy_agent.base.errors import AgentError

LOG = logging.getLogger(__name__)
READ_TIMEOUT = 1.0  # seconds without a byte of the line
WRITE_TIMEOUT = 30.0  # seconds for a peer to take the answer
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_CONNECTIONS = 64


class ControlSocket:
    """Listens once opened; `verbs` answer. The caller polls `listener` and calls `serve_one` when it is readable."""

    def __init__(self, path: str, verbs: dict[str, Callable[[str], dict[str, Any]]]) -> None:
        self._path, self._verbs = path, verbs
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<ControlSocket {self._path}>"

    @property
    def listener(self) -> socket.socket:
        """Return the listening socket."""
        if self._listener is None:
            raise ValueError("the control socket is not open")
        return self._listener

    def open(self) -> None:
        """Listen. OSError."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # On the socket, before it has a name: Linux gives the name its mode, and nobody can connect in between.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(self._path)
            listener.listen(16)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    def serve_one(self) -> None:
        """Accept a connection and serve it in a thread: an answer may have to wait for the disk."""
        connection, _ = self.listener.accept()
        if not self._free.acquire(blocking=False):
            connection.close()  # root's own programs in a loop: they ask again
            return
        threading.Thread(target=self._serve, args=(connection,), name="control-socket", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Read a line and answer it; a peer that falls silent in the middle of it is disconnected."""
        try:
            with connection, contextlib.suppress(OSError, UnicodeDecodeError):
                connection.settimeout(READ_TIMEOUT)
                line = _line(connection).decode().strip()
                connection.settimeout(WRITE_TIMEOUT)
                connection.sendall((self.answer(line) + "\n").encode())
        finally:
            self._free.release()

    def answer(self, line: str) -> str:
        """Return the answer to one line, JSON."""
        verb, _, rest = line.partition(" ")
        if verb not in self._verbs:
            known = ", ".join(sorted(self._verbs))
            return json.dumps({"ok": False, "error": f"unknown verb {verb!r}; known are {known}"})
        try:
            return json.dumps({"ok": True, **self._verbs[verb](rest)})
        except AgentError as error:
            return json.dumps({"ok": False, "code": error.problem.code.value, "error": str(error)})
        except Exception as error:
            LOG.exception("%s: a bug", verb)  # a question must not end the agent
            return json.dumps({"ok": False, "error": f"{verb} failed: {error}; see journalctl -u sammy-agent"})

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _line(connection: socket.socket) -> bytes:
    """Return what comes before the line's end, or before the peer closes; a longer one is cut, so it is not valid."""
    line = bytearray()
    while len(line) < MAX_LINE_BYTES:
        data = connection.recv(65536)
        line += data
        if not data or b"\n" in data:
            break
    return bytes(line.partition(b"\n")[0])
