# SPDX-License-Identifier: Apache-2.0
"""Group commit: one thread writes for all callers, and each goes on when its change is durable.

An fsync costs the same for one change and for a thousand, so all that wait share one transaction and its price.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sammy_agent.base.errors import AgentError, Code

MAX_REQUESTS = 1000  # of one transaction
Work = Callable[[sqlite3.Connection], Any]


class NotWriting(AgentError):
    """A change was not accepted; nothing was done."""

    code = Code.OUTBOX_UNAVAILABLE


class WriteRequest:
    """One caller's change, and the lock that the caller waits on."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.done = threading.Lock()
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None


class GroupCommit:
    """The queue of changes and the thread that writes them, which starts with the first. Thread-safe.

    :param commit: does the work of the requests in one transaction and sets their results; what it raises is raised to
        each of their callers, who must all be able to try again.
    :param after: called with what a commit returned, unless that is 0, when the callers go on already.
    """

    def __init__(
        self, name: str, commit: Callable[[Sequence[WriteRequest]], int], after: Callable[[int], None]
    ) -> None:
        self._name, self._commit, self._after = name, commit, after
        self._requests: queue.SimpleQueue[WriteRequest | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._writer: threading.Thread | None = None

    def submit(self, work: Work) -> Any:
        """Have the work done, wait for its commit, and return its result; raises what the work or the commit raised.

        :raises NotWriting: `close` was called, or the system has no thread left.
        """
        request = WriteRequest(work)
        with self._lock:  # behind the end mark nothing is written any more, and the caller would wait for ever
            if self._closed:
                raise NotWriting("closed")
            if self._writer is None:
                self._writer = self._start_writer()
            self._requests.put(request)
        request.done.acquire()
        if request.error is not None:
            raise request.error
        return request.result

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            self._closed = True
            self._requests.put(None)
        if self._writer is not None:
            self._writer.join()

    def _start_writer(self) -> threading.Thread:
        writer = threading.Thread(target=self._write, name=self._name, daemon=True)
        try:
            writer.start()
        except RuntimeError as error:
            raise NotWriting(str(error)) from error
        return writer

    def _write(self) -> None:
        over = False
        while not over:
            taken = [self._requests.get()]
            while len(taken) < MAX_REQUESTS:
                try:
                    taken.append(self._requests.get_nowait())
                except queue.Empty:
                    break
            over = None in taken
            if changes := [request for request in taken if request is not None]:
                self._commit_all(changes)

    def _commit_all(self, requests: Sequence[WriteRequest]) -> None:
        outcome = 0
        try:
            outcome = self._commit(requests)
        except BaseException as error:
            for request in requests:
                request.error = error
        finally:
            for request in requests:
                request.done.release()
        if outcome:
            self._after(outcome)
