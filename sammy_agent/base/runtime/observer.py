# SPDX-License-Identifier: Apache-2.0
"""The observer pattern: a component emits what happened, knows no listener; `services` connects the two."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Signal(Generic[T]):
    """One kind of news. Connected before the component is started; emitted from any thread, in that thread."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[T], object], ...] = ()

    def connect(self, listener: Callable[[T], object]) -> None:
        """Have a listener called with each value, after those that were connected before."""
        self._listeners = (*self._listeners, listener)

    def emit(self, value: T) -> None:
        """Call the listeners; one that raises costs neither the others nor the component that emits."""
        for listener in self._listeners:
            try:
                listener(value)
            except Exception:
                LOG.exception("a listener of a signal failed: %r", listener)
