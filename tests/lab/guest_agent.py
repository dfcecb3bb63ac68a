# SPDX-License-Identifier: Apache-2.0
"""Commands in a virtual machine without its network: qemu's guest agent, on a socket of qemu's."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.shell import LabError


class GuestAgent:
    """One question at a time to the agent in the guest; it answers when the guest has come so far."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, verb: str, arguments: dict[str, Any] | None = None, *, seconds: float = 30.0) -> Any:
        """Return the agent's answer.

        :raises LabError: no answer within so many seconds, or an error's own words.
        """
        message = {"execute": verb, **({"arguments": arguments} if arguments else {})}
        number = time.monotonic_ns() % 1_000_000_000
        sync = {"execute": "guest-sync", "arguments": {"id": number}}
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(seconds)
                connection.connect(str(self._path))
                with connection.makefile("rwb") as stream:
                    # 0xff: whatever an earlier question left half-read in the agent's parser ends here
                    stream.write(b"\xff" + json.dumps(sync).encode() + b"\n")
                    stream.flush()
                    while _answer(stream.readline()).get("return") != number:
                        pass  # answers to questions that were given up
                    stream.write(json.dumps(message).encode() + b"\n")
                    stream.flush()
                    answer = _answer(stream.readline())
        except OSError as error:
            raise LabError(f"the guest agent does not answer {verb}: {error}") from error
        if "error" in answer:
            raise LabError(f"the guest agent refuses {verb}: {answer['error'].get('desc')}")
        return answer.get("return")

    def run(self, argv: Sequence[str], *, input: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest to its end; timeout in seconds. LabError when it does not end."""
        ends = time.monotonic() + timeout
        start: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if input is not None:
            start["input-data"] = base64.b64encode(input.encode()).decode()
        pid = self.ask("guest-exec", start)["pid"]
        pause = 0.05
        while True:
            state = self.ask("guest-exec-status", {"pid": pid})
            if state["exited"]:
                out, err = (_text(state.get(key, "")) for key in ("out-data", "err-data"))
                return subprocess.CompletedProcess(list(argv), state.get("exitcode", -1), out, err)
            if time.monotonic() > ends:
                raise LabError(f"{' '.join(argv)} did not end in the guest within {timeout:.0f} s")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)


def _text(packed: str) -> str:
    return base64.b64decode(packed).decode(errors="replace")


def _answer(line: bytes) -> dict[str, Any]:
    if not line:
        raise ConnectionError("qemu closed the channel")
    found: dict[str, Any] = json.loads(line.lstrip(b"\xff"))
    return found
