# SPDX-License-Identifier: Apache-2.0
"""The control plane's public keys: fetched by the one transport, kept over its outages and our restarts.

A node that cannot reach its control plane is the one whose debug package is wanted, so the last good key set lies on
disk. A stranger can make us ask at most once in 30 s, whatever key names he invents.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sammy_agent.base.errors import AgentError, Code
from sammy_agent.base.runtime import files
from sammy_agent.base.untrusted import InvalidJSON, read_object
from sammy_agent.base.wire import endpoints
from sammy_agent.daemon.client.client import ControlPlaneClient
from sammy_agent.daemon.client.failures import unreachable

LOG = logging.getLogger(__name__)
CONNECT_TIMEOUT, DEADLINE = 5.0, 10.0
MAX_KEY_SET_BYTES = 64 * 1024
MAX_AGE = 600.0  # seconds; an older set is fetched again, in parallel to the request that uses it
MIN_REFRESH_INTERVAL = 30.0  # seconds between two fetches for a key that the set does not hold
FAILURE_INTERVAL = 2.0  # between two fetches after a failure


class KeysUnavailable(AgentError):
    """The control plane's keys are not known here and cannot be had now."""

    code = Code.KEYS_UNAVAILABLE


def fetcher(client: ControlPlaneClient) -> Callable[[], str]:
    """Return what fetches the key set's text; it raises KeysUnavailable."""

    def fetch() -> str:
        response = client.request("keys", "GET", endpoints.JWKS, connect_timeout=CONNECT_TIMEOUT, deadline=DEADLINE)
        if response.status is None:
            raise KeysUnavailable(unreachable(response.error, client.url).text) from response.error
        if response.status != 200 or len(response.content) > MAX_KEY_SET_BYTES:
            raise KeysUnavailable(f"{client.url}{endpoints.JWKS} answers {response.status}, not a key set")
        return response.text

    return fetch


class JwksCache:
    """The set as text of a JWKS. Thread-safe; `refresh` blocks for a request, everything else is memory.

    :param kept: the file of the last good set.
    """

    def __init__(self, fetch: Callable[[], str], kept: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._kept, self._clock = fetch, kept, clock
        self._lock = threading.Lock()
        self._entries: tuple[dict[str, Any], ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._problem: KeysUnavailable | None = None
        self._loaded = False

    def __repr__(self) -> str:
        return f"<JwksCache {len(self._entries)}>"

    @property
    def known(self) -> tuple[dict[str, Any], ...]:
        """The keys, each as the object of a JWKS; the same tuple as long as they are the same keys."""
        if not self._loaded:
            with self._lock:
                self._load()
        return self._entries

    @property
    def is_fresh(self) -> bool:
        """Tell whether the set was fetched lately."""
        return self._fetched is not None and self._clock() - self._fetched < MAX_AGE

    def refresh(self, *, min_interval: float = MIN_REFRESH_INTERVAL) -> None:
        """Fetch the key set unless it was fetched within `min_interval` seconds; concurrent callers wait.

        :raises KeysUnavailable: it cannot be had; the old one is still `known`.
        """
        with self._lock:
            self._load()
            now = self._clock()
            if self._problem is not None and self._tried is not None and now - self._tried < FAILURE_INTERVAL:
                raise self._problem
            if self._problem is None and self._fetched is not None and now - self._fetched < min_interval:
                return
            try:
                text = self._fetch()
                found = entries(text)
            except KeysUnavailable as problem:
                if self._problem is None:
                    LOG.warning("the control plane's keys: %s", problem)
                self._problem, self._tried = problem, self._clock()
                raise
            self._problem, self._fetched = None, self._clock()
            if found != self._entries:
                self._entries = found
                self._keep(text)

    def _load(self) -> None:
        """Read the last good set, before the first of them is needed."""
        if not self._loaded:
            with contextlib.suppress(OSError, KeysUnavailable):
                self._entries = entries(files.read(self._kept) or "")
            self._loaded = True

    def _keep(self, text: str) -> None:
        try:
            files.write(self._kept, text)
        except OSError as error:
            LOG.warning("%s cannot be written: %s", self._kept, error.strerror)


def entries(text: str) -> tuple[dict[str, Any], ...]:
    """Return the keys of a JWKS. KeysUnavailable when the text is none."""
    try:
        listed = read_object(text.encode(), max_depth=4)["keys"]
    except (InvalidJSON, KeyError) as error:
        raise KeysUnavailable("the answer is not a key set; is it a control plane's?") from error
    found = tuple(entry for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else ()
    if not found:
        raise KeysUnavailable("the control plane's key set is empty")
    return found
