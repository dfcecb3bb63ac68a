# SPDX-License-Identifier: Apache-2.0
"""The node's TLS certificate: its key is made here and never leaves; the control plane signs the request.

A key that somebody else put there is left alone. A control plane without this call (an older SAM) is asked again
each hour; nothing waits for the certificate.
"""

from __future__ import annotations

import logging
import os
import sys

from sammy_agent.base.errors import Code, Problem
from sammy_agent.base.runtime import files, process
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.observer import Signal
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire import endpoints
from sammy_agent.daemon.client.client import Response
from sammy_agent.daemon.client.failures import RequestFailed
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger

LOG = logging.getLogger(__name__)
CHECK_INTERVAL = 86400.0
UNSUPPORTED_RETRY = 3600.0
HELPER_DEADLINE = 60.0


def is_certificate(answer: Response) -> bool:
    """Return whether the answer is a certificate."""
    return answer.text.lstrip().startswith("-----BEGIN CERTIFICATE-----")


class _HelperFailed(Exception):
    """The key, the request or the certificate could not be created or saved."""


class CertificateRenewer(Reporter):
    """Requests and renews the node's certificate, once the control plane is connected."""

    triggers = (Trigger.CONNECTED,)

    def __init__(self, plane: ReporterClient, paths: Paths, run: process.Run = process.run) -> None:
        super().__init__("certificate")
        self._plane, self._paths, self._run = plane, paths, run
        self._backoff = Backoff(longest=60.0)
        self.installed: Signal[None] = Signal()

    def run_once(self) -> float | None:
        """Check whether a certificate is needed, and request it."""
        if not self._plane.contact.is_ok():
            return None  # woken by the first answered heartbeat
        try:
            return self._look()
        except RequestFailed as failed:
            unknown = failed.status in (401, 404) and failed.problem.code is not Code.TOKEN_EXPIRED
            return UNSUPPORTED_RETRY if unknown else max(self._backoff.next_delay(), failed.retry_after)
        except (OSError, _HelperFailed) as error:
            self._plane.contact.failure("certificate", Problem(Code.NODE_KEY, f"the node's TLS key: {error}"))
            return self._backoff.next_delay()

    def _look(self) -> float:
        if not self._is_agent_managed():
            return CHECK_INTERVAL
        wanted = self._helper("request", self._plane.identity.node_id)
        if wanted:
            answer = self._plane.post("certificate", endpoints.CERTIFICATE, wanted, accept=is_certificate)
            self._helper("install", input=answer.text)
            LOG.info("the node's certificate is signed")
            self.installed.emit(None)
        self._backoff.reset()
        return CHECK_INTERVAL

    def _is_agent_managed(self) -> bool:
        """Mark the key as ours before it is created; an existing one without the mark was put there by an operator."""
        if os.path.exists(self._paths.tls_mark):
            return True
        if os.path.exists(self._paths.tls_key) or os.path.exists(self._paths.tls_certificate):
            return False
        files.write(self._paths.tls_mark, "")
        return True

    def _helper(self, verb: str, *more: str, input: str = "") -> str:
        """Run `certificate_request`; return what it prints. _HelperFailed with its reason."""
        paths = (self._paths.tls_key, self._paths.tls_certificate)
        argv = [sys.executable, "-m", "sammy_agent.daemon.credentials.certificate_request", verb, *paths, *more]
        done = self._run(argv, HELPER_DEADLINE, input=input.encode())
        if not done.ok:
            raise _HelperFailed(done.failure)
        return done.text
