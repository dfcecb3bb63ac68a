# SPDX-License-Identifier: Apache-2.0
"""Client of the agent's control socket, for the command line: one request per connection."""

from __future__ import annotations

import json
import socket
from typing import Any


def ask(path: str, line: str, seconds: float = 5.0) -> dict[str, Any] | None:
    """Send a request to the running agent; return its answer, None when there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(seconds)
            channel.connect(path)
            channel.sendall((line + "\n").encode())
            with channel.makefile(encoding="utf-8") as file:
                answer: Any = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
