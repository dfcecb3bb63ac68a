# SPDX-License-Identifier: Apache-2.0
"""The figures of the transport, each with its reason; nothing here does I/O.

All times are seconds. Two facts of Linux rule the socket values. With TCP_USER_TIMEOUT set the kernel ignores the
count of keepalive probes: a waiting connection dies at the first timer after that time without an answer, so the time
must leave room for several probes or one lost packet kills a healthy request. And a keepalive probe is not sent while
data is unacknowledged, so neither option can stand in for the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sammy_agent.transport.errors import TransportError


@dataclass(frozen=True)
class SocketProfile:
    """How soon a connection counts as dead, in seconds.

    `user_timeout`: the kernel gives up after so long without an acknowledgment (raised to four round trips when the
    path is slow). `keep_idle`, `keep_interval`: first and further probes while nothing is under way. `acknowledge`:
    a request that may be replayed is, when the peer's kernel has not even acknowledged it in this time (again at
    least four round trips); None waits for the kernel.
    """

    user_timeout: float
    keep_idle: int
    keep_interval: int
    acknowledge: float | None = None

    def __post_init__(self) -> None:
        if self.keep_idle < 1 or self.keep_interval < 1:
            raise TransportError("keepalive times are whole seconds, at least 1")
        if self.user_timeout <= self.keep_idle + 2 * self.keep_interval:
            raise TransportError(
                f"a user timeout of {self.user_timeout} s leaves no room for a lost probe",
                f"It must exceed keep_idle + 2 x keep_interval = {self.keep_idle + 2 * self.keep_interval} s",
            )

    @property
    def keep_count(self) -> int:
        """Probes until the user timeout; matters only to a kernel without that option."""
        return max(3, int((self.user_timeout - self.keep_idle) / self.keep_interval))


# For a heartbeat each minute: dead within 5 s where nothing is acknowledged, in 15 to 17 s while an answer is awaited.
PROMPT = SocketProfile(user_timeout=15.0, keep_idle=3, keep_interval=2, acknowledge=5.0)
# A reader may pause (a closed window counts against the user timeout too), an answer may take its time.
BULK = SocketProfile(user_timeout=20.0, keep_idle=6, keep_interval=3)


@dataclass(frozen=True)
class TransportSettings:
    """What a ControlPlaneTransport is made of; the defaults suit a heartbeat each minute.

    `ca_file`: PEM file of the only authorities to trust; None trusts the system's store (SSL_CERT_FILE is honoured).
    `connect_seconds`: name, TCP and TLS together. `header_seconds`: longest silence while sending, waiting for the
    header or reading the body. `total_seconds`, `bulk_total_seconds`: a whole request with its replay and its body.
    `idle_seconds`: an older idle connection is not used again. `retry_interval_seconds`: while a connect is unanswered
    a further one starts in parallel. `bulk_bytes`: larger bodies go to the bulk pool. `max_response_bytes`: a longer
    answer, unpacked, is refused unless it is streamed: what stands in the control plane's place must not fill memory.
    """

    ca_file: str | None = None
    connect_seconds: float = 10.0
    header_seconds: float = 30.0
    total_seconds: float = 60.0
    bulk_total_seconds: float = 1800.0
    idle_seconds: float = 30.0
    retry_interval_seconds: float = 1.0
    bulk_bytes: int = 64 * 1024
    max_response_bytes: int = 16 * 1024 * 1024
    pool_size: int = 20
    prompt: SocketProfile = field(default=PROMPT)
    bulk: SocketProfile = field(default=BULK)

    def __post_init__(self) -> None:
        names: tuple[str, ...] = (
            "connect_seconds",
            "header_seconds",
            "total_seconds",
            "bulk_total_seconds",
            "idle_seconds",
        )
        wrong = [
            name
            for name in (*names, "retry_interval_seconds", "pool_size", "max_response_bytes")
            if not getattr(self, name) > 0
        ]
        if wrong:
            raise TransportError(f"the transport's {', '.join(wrong)} must be above 0")
