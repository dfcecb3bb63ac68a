# SPDX-License-Identifier: Apache-2.0
"""Collects this node's secrets: of its own files, and of processes' environments under a secret's name.

Known secrets are found in any encoding, also where nothing around them says what they are. They stay in memory.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
from collections.abc import Iterator
from typing import Any

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import CONTROL_PLANE_STATE, STATE_DIR, Paths
from sammy_agent.diagnostics.redaction.secret_patterns import NAME
from sammy_agent.node import config

# Files whose whole content is a secret.
SECRET_FILES = (
    f"{STATE_DIR}/workspaces/*.token",
    f"{CONTROL_PLANE_STATE}/operator-token",
    f"{CONTROL_PLANE_STATE}/*.key",
    "/etc/sammy/tls/*.key",
)
# Files with secrets in them, under names that say so.
FILES_WITH_SECRETS = (
    f"{STATE_DIR}/workspaces/*.json",
    "/root/.docker/config.json",
    "/home/*/.docker/config.json",
    "/etc/default/*",
    "/etc/environment",
    "/var/lib/cloud/instance/user-data.txt",
)
MAX_FILE_BYTES = 64 * 1024  # bytes of a file
MAX_SECRETS_BY_NAME = 2000  # of values found by name
# A value under a secret's name that does not look random stands all over a machine: it cannot be redacted.
LOOKS_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])\S{10,}|\S{20,}")
NOT_A_SECRET = re.compile(r"[/$\[{<]|[a-z]+://[^@]*$")  # a path, a variable, an address without a password
ASSIGNED = re.compile(rf"(?im)[\"']?\b[\w.-]*{NAME}[\"']?\s*[:=]\s*[\"']?([^\s\"']+)")


def collect_secrets(paths: Paths, *, processes: bool = True) -> list[str]:
    """Return all that are found; what cannot be read is skipped.

    :param processes: look at the environments of all processes too.
    """
    found = [*_own(paths), *(text for pattern in SECRET_FILES for text in _texts(paths, pattern))]
    held = [*_held(paths), *(_of_processes() if processes else ())]
    by_name = dict.fromkeys(value for value in held if LOOKS_RANDOM.fullmatch(value) and not NOT_A_SECRET.match(value))
    return [*found, *list(by_name)[:MAX_SECRETS_BY_NAME]]


def _own(paths: Paths) -> Iterator[str]:
    found = [paths.token, paths.tls_key]
    with contextlib.suppress(AgentError, OSError):
        loaded = config.load(paths)
        if loaded is not None and loaded.token_file is not None:
            found.append(loaded.token_file)
    for path in found:
        with contextlib.suppress(OSError):
            yield files.read(path) or ""


def _texts(paths: Paths, pattern: str) -> Iterator[str]:
    for path in sorted(glob.glob(paths.under_root(pattern))):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            yield file.read(MAX_FILE_BYTES)


def _held(paths: Paths) -> Iterator[str]:
    for pattern in FILES_WITH_SECRETS:
        for text in _texts(paths, pattern):
            with contextlib.suppress(ValueError, RecursionError):
                yield from _leaves(json.loads(text), named="workspaces" in pattern)
                continue
            yield from ASSIGNED.findall(text)


def _leaves(document: Any, named: bool) -> Iterator[str]:
    """Yield the texts of a JSON document that stand under a secret's name."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _leaves(value, re.search(rf"(?i){NAME}$", str(key)) is not None)
    elif isinstance(document, list):
        for value in document:
            yield from _leaves(value, named)
    elif isinstance(document, str) and named:
        yield document


def _of_processes() -> Iterator[str]:
    """Yield what processes, those of containers too, have in their environments under a secret's name."""
    wanted = re.compile(rf"(?i)^[\w.-]*{NAME}(?:_base64|_b64)?$")
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            for entry in file.read(MAX_FILE_BYTES).split(b"\0"):
                name, _, value = entry.decode("utf-8", errors="replace").partition("=")
                if wanted.match(name):
                    yield value
