# SPDX-License-Identifier: Apache-2.0
"""Writes the run record to disk in parallel to the steps.

An fsync waits for the file system's journal, which dpkg keeps busy for hundreds of milliseconds of a boot. The thread
that starts the steps must not wait for it, so a separate thread writes the latest text; skipping those in between loses
nothing.
"""

from __future__ import annotations

import logging
import threading

from cc_sammy.common import files

LOG = logging.getLogger(__name__)


class RunRecordWriter:
    """Writes the latest text of one file, atomically and fsynced. A failure is logged, never raised."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._pending: str | None = None
        self._writing = False

    def __repr__(self) -> str:
        return f"<RunRecordWriter {self._path}{' pending' if self._pending is not None else ''}>"

    def write(self, text: str) -> None:
        """Schedule this text to be written; it replaces one that still waits."""
        with self._changed:
            self._pending = text
            if not self._writing:
                self._writing = True
                threading.Thread(target=self._work, name="sammy-run-record", daemon=True).start()

    def flush(self) -> None:
        """Wait until the latest text is written, or failed to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)

    def _work(self) -> None:
        while True:
            with self._changed:
                text, self._pending = self._pending, None
                if text is None:
                    self._writing = False
                    self._changed.notify_all()
                    return
            try:
                files.write_text(self._path, text, sync=True)
            except OSError as error:
                LOG.debug("sammy: could not write %s: %s", self._path, error)
