# SPDX-License-Identifier: Apache-2.0
"""Small state on disk: what a component must remember across a restart, one file of 0600 each.

Reading and writing never raise for what a disk does to a file. A damaged or unreadable file is a `Problem`, so that a
constructor or a task can go on without the state and say why: an unreadable ready.json once leaked two threads every
five seconds, because the constructor of one reporter raised and its siblings had already started.

    found = state_file.load(path, Acknowledgement)
    if isinstance(found, Problem): ...        # damaged or unreadable: report it, go on without
    elif found is None: ...                 # never written
    problem = state_file.save(path, found)  # None: it is on disk
"""

from __future__ import annotations

import json
from typing import Any, Protocol, TypeVar

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.runtime import files

MAX_STATE_BYTES = 1024 * 1024
CHECK_DISK = "Check the disk: df -h /var, dmesg"


class StateDocument(Protocol):
    """A value that is kept as a JSON document."""

    @classmethod
    def from_document(cls, document: Any) -> Any:
        """Return the value. ValueError, KeyError, TypeError or AttributeError when the document is not one."""

    def to_document(self) -> Any:
        """Return what is written; json.dumps must take it."""


T = TypeVar("T", bound=StateDocument)


def load(path: str, cls: type[T]) -> T | Problem | None:
    """Return the state that a file holds, None when there is no file, a Problem when it is damaged or unreadable."""
    content = _read(path)
    if not isinstance(content, bytes):
        return content
    try:
        state: T = cls.from_document(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return _damaged(path, f"{type(error).__name__}: {error}")
    return state


def load_text(path: str) -> str | Problem | None:
    """Return the text of a file that holds a single word (an id, a digest, a mark), without the blanks around it."""
    content = _read(path)
    if not isinstance(content, bytes):
        return content
    try:
        return content.decode().strip()
    except ValueError as error:
        return _damaged(path, str(error))


def save(path: str, state: StateDocument | str) -> Problem | None:
    """Replace the file, atomically and durably, readable by its owner only; return why that was not possible."""
    text = state if isinstance(state, str) else json.dumps(state.to_document())
    try:
        files.write(path, text + "\n", mode=files.PRIVATE)
    except OSError as error:
        return Problem(Code.STATE_UNSAVED, f"{path} cannot be written: {error.strerror}", CHECK_DISK)
    return None


def _read(path: str) -> bytes | Problem | None:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_STATE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Problem(Code.STATE_UNREADABLE, f"{path} cannot be read: {error.strerror}", CHECK_DISK)
    if len(content) > MAX_STATE_BYTES:
        return _damaged(path, f"it is larger than {MAX_STATE_BYTES} bytes")
    return content


def _damaged(path: str, why: str) -> Problem:
    return Problem(Code.STATE_DAMAGED, f"{path} is damaged ({why})", "Remove it; the agent writes it again")
