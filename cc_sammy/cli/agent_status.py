# SPDX-License-Identifier: Apache-2.0
"""What the running agent says of itself on its control socket, as rows for `sammy status`.

The socket's answer is described in sammy_agent/daemon/control_socket.py; whatever is absent or null is not known.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from cc_sammy.contract import paths

SOCKET_TIMEOUT = 5.0  # seconds


def ask(line: str = "status") -> dict[str, Any] | None:
    """Return the agent's answer; None when none answers. PermissionError for those who may not ask."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(SOCKET_TIMEOUT)
            channel.connect(paths.AGENT_SOCKET)
            channel.sendall(line.encode() + b"\n")
            with channel.makefile(encoding="utf-8") as file:
                answer: Any = json.loads(file.read())
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, paths.AGENT_SOCKET) from error
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and answer.get("ok") else None


def is_expected() -> bool:
    """Tell whether this machine is to have an agent."""
    return os.path.exists(paths.AGENT_CONFIG)


def exit_status(answer: dict[str, Any] | None) -> int:
    """Return 0 in contact or with no control plane to reach, 3 not yet, 1 no contact or no agent."""
    if answer is None:
        return 1
    if not answer.get("control_plane_url") and not answer.get("config_problem"):
        return 0
    state = (answer.get("contact") or {}).get("state")
    return {"ok": 0, "never": 3}.get(str(state), 1)


def rows(answer: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return label and words, one row a thing worth knowing."""
    if answer is None:
        return [("agent", "does not answer. Look at: journalctl -b -u sammy-agent")]
    if answer.get("config_problem"):
        return [("agent", f"its configuration is wrong: {_problem(answer['config_problem'])}"), *_services(answer)]
    if not answer.get("control_plane_url"):
        return [("agent", "runs; no control plane is configured"), *_services(answer)]
    found = [("control plane", f"{answer['control_plane_url']} knows this node as {answer.get('node_id')}")]
    found.append(("contact", _contact(answer.get("contact") or {})))
    offset = (answer.get("contact") or {}).get("clock_offset_s")
    if offset is not None:
        away = "agrees with the control plane's" if abs(offset) < 5 else f"is {_clock(offset)} the control plane's"
        found.append(("clock", f"{away}{'' if abs(offset) < 60 else '. Set it right: timedatectl set-ntp true'}"))
    found.append(("token", _token(answer.get("token") or {})))
    ready = answer.get("ready") or {}
    found.append(("ready", _ready(ready)))
    if (answer.get("firewall") or {}).get("problem"):
        found.append(("firewall", answer["firewall"]["problem"]))
    waiting = _outbox(answer.get("outbox") or {})
    if waiting:
        found.append(("outbox", waiting))
    packages = answer.get("packages") or {}
    if packages.get("waiting"):
        why = f": {packages['problem']}" if packages.get("problem") else ""
        found.append(("debug package", f"{packages['waiting']} to go to the control plane by itself{why}"))
    if answer.get("server"):
        found.append(("server", _server(answer["server"], answer.get("inbound") or {})))
    if (answer.get("metrics") or {}).get("problem"):
        found.append(("metrics", answer["metrics"]["problem"]))
    found += [("event store", words) for words in _store(answer.get("store") or {})]
    return [*found, *_services(answer)]


def _services(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the agent's services that could not be started, and why."""
    return [("not started", _problem(problem)) for _, problem in sorted((answer.get("services") or {}).items())]


def _store(store: dict[str, Any]) -> list[str]:
    words = [str(store[key]) for key in ("problem", "damage") if store.get(key)]
    lost = f"{store.get('lost')} events were lost. See `sammy events --type events.lost`"
    return [*words, lost] if store.get("lost") else words


def _problem(problem: dict[str, Any]) -> str:
    return ". ".join(str(problem[key]).rstrip(".") for key in ("text", "next_step") if problem.get(key))


def _contact(contact: dict[str, Any]) -> str:
    age = contact.get("last_beat_age_s")
    last = "no beat yet" if age is None else f"last beat {_span(age)} ago"
    if contact.get("state") == "ok":
        return f"yes, {last}"
    if contact.get("cause"):
        return f"no contact since {contact.get('since')} ({last}): {_problem(contact['cause'])}"
    return last


def _clock(offset: float) -> str:
    return f"{_span(abs(offset))} {'behind' if offset > 0 else 'ahead of'}"


def _token(token: dict[str, Any]) -> str:
    left = token.get("seconds_left")
    words = {
        "expired": "expired; a new one: sammy-agent token set",
        "missing": "missing; bring one: sammy-agent token set",
    }.get(str(token.get("state")), "good" if left is None else f"good for {_span(left)}")
    return f"{words}; {_problem(token['problem'])}" if token.get("problem") else words


def _ready(ready: dict[str, Any]) -> str:
    if ready.get("state") == "acknowledged":
        return f"acknowledged by the control plane at {ready.get('acknowledged_at')}"
    return f"not acknowledged yet: {_problem(ready['cause'])}" if ready.get("cause") else "not told yet"


def _outbox(outbox: dict[str, Any]) -> str:
    """Return what waits, and why; nothing where all is delivered."""
    said = [f"{outbox['rows']} rows wait"] if outbox.get("rows") else []
    said += [f"{lane}: {trouble}" for lane, trouble in sorted((outbox.get("trouble") or {}).items())]
    said += [str(outbox[name]) for name in ("problem", "damage") if outbox.get(name)]
    if outbox.get("set_aside_now"):
        said.append(f"{outbox['set_aside_now']} were refused and set aside: see sammy outbox")
    if outbox.get("dropped"):
        said.append(f"{outbox['dropped']} were dropped because it was full")
    return "; ".join(said)


def _server(server: dict[str, Any], inbound: dict[str, Any]) -> str:
    if server.get("problem"):
        return _problem(server["problem"])
    age = inbound.get("last_age_s")
    came = "has not connected yet" if age is None else f"connected {_span(age)} ago"
    return f"listens on port {server.get('port')}; the control plane {came}"


def _span(seconds: float) -> str:
    """Return a time span in one unit a person takes in at a glance."""
    for size, unit in ((86400 * 2, "d"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
