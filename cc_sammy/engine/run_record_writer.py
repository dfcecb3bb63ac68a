# SPDX-License-Identifier: Apache-2.0
"""The run's history on disk, written beside the steps.

An fsync waits for the file system's journal, which is dpkg's for hundreds of milliseconds of a boot. The thread that
starts the steps must not wait with it, so a thread of its own writes the latest text; those in between are no loss.
"""

from __future__ import annotations

import logging
import threading

from cc_sammy.common import files

LOG = logging.getLogger(__name__)


class History:
    """One file that always becomes its latest text, atomically and fsynced. A failure is logged, never raised."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._wanted: str | None = None
        self._writing = False

    def __repr__(self) -> str:
        return f"<History {self._path}{' to write' if self._wanted is not None else ''}>"

    def write(self, text: str) -> None:
        """Have the file become this text, soon."""
        with self._changed:
            self._wanted = text
            if not self._writing:
                self._writing = True
                threading.Thread(target=self._work, name="sammy-run-record", daemon=True).start()

    def flush(self) -> None:
        """Wait until the file is the latest text, or could not be written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing)

    def _work(self) -> None:
        while True:
            with self._changed:
                text, self._wanted = self._wanted, None
                if text is None:
                    self._writing = False
                    self._changed.notify_all()
                    return
            try:
                files.write_text(self._path, text, sync=True)
            except OSError as error:
                LOG.debug("sammy: could not write %s: %s", self._path, error)
