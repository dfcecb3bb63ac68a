# SPDX-License-Identifier: Apache-2.0
"""Reports to the control plane what must be known even if no agent is ever installed: first start, failed runs.

A machine whose agent could not be installed was silent for ever in the boots this project comes from. Here the start
of the first boot and every failed run are posted to the node's /errors, by a thread in parallel to the steps, with
bounds on everything. It can neither fail nor delay a step.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import datetime, timezone
from typing import Any

from cc_sammy.common import files
from cc_sammy.config import Config, given
from cc_sammy.contract import paths
from cc_sammy.contract.incident_id import incident_id
from cc_sammy.contract.run_record import RunRecord
from cc_sammy.host.host import Host

LOG = logging.getLogger(__name__)
TIMEOUT = (3.0, 7.0)  # connect, read; seconds
ATTEMPTS = 3
RETRY_DELAY = 2.0  # seconds
JOIN_TIMEOUT = 20.0  # seconds that a failed run waits for its report: the bar is 30 s from failure to control plane


class FailureReporter:
    """Posts reports one after the other from a thread of its own; does nothing without a node id, URL and token."""

    def __init__(self, host: Host, config: Config, record: RunRecord) -> None:
        self._host, self._record = host, record
        self._node, self._plane = config.node_id or "", config.control_plane
        self._last: threading.Thread | None = None

    def report_start(self) -> None:
        """Report that the first boot's run started; later boots have an agent for that."""
        if not os.path.exists(paths.READY_ACKNOWLEDGED):
            self._post("info", "provisioning started", "began")

    def report_failure(self) -> None:
        """Report why the run failed, and wait a bounded time for delivery: cloud-init's process may end next."""
        self._post("error", f"provisioning failed: {self._record.reason}", "failed")
        if self._last is not None:
            self._last.join(JOIN_TIMEOUT)

    def _post(self, level: str, message: str, what: str) -> None:
        if not (self._node and self._plane.url and self._plane.token_file):
            return
        entry = {
            "incidentId": incident_id(self._record.run_id, what),
            "level": level,
            "message": message[:2048],
            "source": "cc_sammy",
            "stack": "",
            "workspaceId": "",
            "timestamp": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            "context": {
                "runId": self._record.run_id,
                "bootId": self._record.boot_id,
                "steps": {step.name: step.status.value for step in self._record.steps},
            },
        }
        before = self._last
        self._last = threading.Thread(
            target=self._deliver, args=(entry, before), name="sammy-failure-reporter", daemon=True
        )
        self._last.start()

    def _deliver(self, entry: dict[str, Any], before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        for _ in range(ATTEMPTS):
            problem = self._attempt(entry)
            if problem is None:
                return
            LOG.debug("sammy: could not report %r to the control plane: %s", entry["message"], problem)
            self._host.sleep(RETRY_DELAY)

    def _attempt(self, entry: dict[str, Any]) -> str | None:
        """Post once; return what went wrong, None when it was accepted or will never be."""
        from urllib.parse import quote  # both late: cloud-init has imported them already

        import requests

        try:
            token = (files.read_text(given(self._plane.token_file)) or "").strip()
            answer = requests.post(
                f"{given(self._plane.url).rstrip('/')}/api/nodes/{quote(self._node, safe='')}/errors",
                json={"errors": [entry]},
                headers={"Authorization": f"Bearer {token}"},
                timeout=TIMEOUT,
                verify=self._plane.ca_file or True,
                allow_redirects=False,
            )
        except (OSError, ValueError) as error:  # requests' own errors are OSErrors
            return f"{type(error).__name__}: {error}"
        return None if answer.status_code in (204, 200, 400) else f"status {answer.status_code}"
