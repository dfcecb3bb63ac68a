# SPDX-License-Identifier: Apache-2.0
"""One at a time: boot step, timer, agent and operator may all come at the same moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from cc_sammy.errors import SammyError
from cc_sammy.host.host import Host

LOCK = "/run/sammy/firewall.lock"
LOCK_SECONDS = 30.0


@contextlib.contextmanager
def exclusive(host: Host) -> Iterator[None]:
    """Hold the firewall's lock; the kernel frees it when its holder dies, so a killed apply blocks nobody.

    :raises SammyError: not root, or another program held it for 30 s.
    """
    try:
        os.makedirs(os.path.dirname(LOCK), exist_ok=True)
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SammyError(f"cannot lock the firewall at {LOCK}: {error.strerror}", "Run the command as root") from error
    deadline = host.boottime() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if host.boottime() > deadline:
                    raise SammyError(
                        f"another program has held {LOCK} for {LOCK_SECONDS:.0f} s",
                        f"Find it with `fuser -v {LOCK}`",
                    ) from None
                host.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
