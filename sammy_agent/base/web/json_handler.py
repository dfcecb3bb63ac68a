# SPDX-License-Identifier: Apache-2.0
"""What the node's server and the control plane share of tornado: JSON answers, errors as JSON, no word about ourselves.

A subclass says what its errors look like and which exceptions are refusals rather than bugs.
"""

from __future__ import annotations

import json
import logging
from types import TracebackType
from typing import Any, NamedTuple

from tornado import iostream, web

from sammy_agent.base.runtime.log_throttle import ThrottleFilter

LIBRARY_LOGGERS = ("tornado.general", "tornado.access", "tornado.application", "asyncio")
LIBRARY_LOG_INTERVAL = 60.0  # seconds
_FILTER = ThrottleFilter(LIBRARY_LOG_INTERVAL)


class Refusal(NamedTuple):
    """An exception that is an answer."""

    status: int
    message: str
    retry_after: int | None = None


class JsonHandler(web.RequestHandler):
    """One answer."""

    bug_message = "Internal server error"

    @property
    def stream(self) -> iostream.IOStream:
        """The connection."""
        stream: iostream.IOStream = self.request.connection.stream  # type: ignore[union-attr]  # HTTP/1's has one
        return stream

    def set_default_headers(self) -> None:
        """Do not name the server's software."""
        self.clear_header("Server")

    def error_document(self, status: int, message: str) -> dict[str, Any]:
        """Return the body of an error."""
        return {"error": message}

    def refusal(self, error: BaseException | None) -> Refusal | None:
        """Return what an exception answers, None for a bug."""
        return None

    def write_json(self, document: dict[str, Any], status: int = 200) -> None:
        """Send a JSON object."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document))

    def write_error_json(self, status: int, message: str, retry_after: int | None = None) -> None:
        """Send an error."""
        if retry_after is not None:
            self.set_header("Retry-After", str(retry_after))
        self.write_json(self.error_document(status, message), status)

    def write_error(self, status_code: int, **more: Any) -> None:
        """Answer a refusal that was raised, what tornado refuses, and our own bugs, in the same shape."""
        refusal = self.refusal((more.get("exc_info") or (None, None))[1])
        if refusal is not None:
            self.write_error_json(*refusal)
        else:
            self.write_error_json(status_code, self.bug_message if status_code >= 500 else self._reason)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log bugs with their traceback, and refusals as `log_refusal` has it."""
        refusal = self.refusal(value)
        if refusal is None:
            super().log_exception(typ, value, tb)
        else:
            self.log_refusal(refusal)

    def log_refusal(self, refusal: Refusal) -> None:
        """Log an exception that is an answer: not at all, unless a subclass does."""


def throttle_library_logs() -> None:
    """Let tornado and asyncio log equal messages once a minute: a stranger's garbage makes one per connection."""
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # the same filter twice is one
