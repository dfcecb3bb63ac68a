# SPDX-License-Identifier: Apache-2.0
"""What an answer means for the rows that were sent, and when to send again. No I/O.

Reporters that send directly (heartbeat, ready) retry by base.runtime.backoff alone: they have nothing to keep.

A 400 names no row. So the lane remembers how many rows at its head are known to contain the rejected one and sends
half of them, until it stands alone. Alone it is sent again before it is moved to the dead letters: SAM answers 400 also
while a workspace restarts. Where row after row is rejected it is rather the workspace than the rows, so each further
one is sent again over a longer time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from sammy_agent.base.runtime.backoff import exponential
from sammy_agent.base.wire.statuses import AUTHENTICATION_REQUIRED, SESSION_FULL


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds; `confirmations` is how often a row alone must be rejected before it becomes a dead letter."""

    first: float = 1.0
    longest: float = 60.0
    confirm_first: float = 0.5
    confirm_longest: float = 60.0
    confirmations: int = 6
    unsupported: float = 3600.0


@dataclass(frozen=True)
class ResponseInfo:
    """An answer as far as it matters here; `status` is None when there was none."""

    status: int | None
    accepted: bool = False  # a 2xx in the shape of the channel's
    error: str = ""
    message: str = ""
    retry_after: float = 0.0
    token_expired: bool = False
    remaining: int | None = None  # rows a full session would still take

    @property
    def summary(self) -> str:
        """The answer for people."""
        return f"{self.status or 'no answer'}{': ' if self.message else ''}{self.message}"


class Classification(Enum):
    """What an answer means."""

    DELIVERED = "delivered"
    RETRY = "retry"  # a transient failure
    HOLD = "hold"  # access is denied: everything is kept until somebody grants it
    REFUSED = "refused"  # one of these rows is rejected
    FULL = "full"  # the session takes no more, ever
    UNSUPPORTED = "unsupported"  # that control plane does not have the endpoint


def classify(response: ResponseInfo, *, optional: bool = False) -> Classification:  # noqa: PLR0911  (a table in order)
    """Return what an answer means; `optional` for a channel that a control plane need not have."""
    status = response.status
    if status is None or (200 <= status < 400 and not response.accepted):
        return Classification.RETRY  # no answer, or not a control plane's: a login page answers 200 to everything
    if response.accepted:
        return Classification.DELIVERED
    if optional and (status == 404 or (status == 401 and response.message == AUTHENTICATION_REQUIRED)):
        return Classification.UNSUPPORTED
    if status in (401, 403, 404) or (status == 500 and response.token_expired):
        return Classification.HOLD
    if status in (400, 413, 422):
        return Classification.REFUSED
    if status == 409 and response.error == SESSION_FULL:
        return Classification.REFUSED if response.remaining else Classification.FULL
    return Classification.RETRY


@dataclass(frozen=True)
class LaneState:
    """Where a lane stands."""

    suspect_rows: int = 0  # number of rows at the head that are known to contain the rejected row
    refusals: int = 0  # how often the first row was rejected alone
    consecutive_rejections: int = 0  # dead letters since a row was accepted
    failures: int = 0  # consecutive answers that neither accepted nor rejected a row

    @property
    def poison(self) -> tuple[int, int, int]:
        """What is known of a rejected row, which a restart must not forget."""
        return self.suspect_rows, self.refusals, self.consecutive_rejections

    def batch_limit(self, limit: int) -> int:
        """Return how many rows the next request may hold."""
        return min(limit, max(1, self.suspect_rows // 2)) if self.suspect_rows else limit


@dataclass(frozen=True)
class NextAction:
    """What to do: rows to remove as delivered or as dead letters, both from the head, and how long to wait.

    The wait is `at_least` and a share of `backoff_limit` drawn from 0 to 1 (full jitter: a fleet comes back spread).
    """

    state: LaneState
    delivered: int = 0
    dead_letters: int = 0
    backoff_limit: float = 0.0
    at_least: float = 0.0


def decide(
    state: LaneState, classification: Classification, sent: int, response: ResponseInfo, policy: RetryPolicy
) -> NextAction:
    """Return what follows from the answer to a request with `sent` rows of the lane's head."""
    if classification is Classification.DELIVERED:
        return NextAction(LaneState(suspect_rows=max(0, state.suspect_rows - sent)), delivered=sent)
    if classification is Classification.FULL:
        return NextAction(replace(state, suspect_rows=0, refusals=0, failures=0), dead_letters=sent)
    if classification is Classification.UNSUPPORTED:
        return NextAction(state, backoff_limit=0.1 * policy.unsupported, at_least=policy.unsupported)
    if classification is Classification.REFUSED:
        return _after_refusal(state, sent, response, policy)
    limit = exponential(policy.first, state.failures, policy.longest)
    return NextAction(replace(state, failures=state.failures + 1), backoff_limit=limit, at_least=response.retry_after)


def _after_refusal(state: LaneState, sent: int, response: ResponseInfo, policy: RetryPolicy) -> NextAction:
    """Halve what may be the rejected row, or count how often it was rejected alone."""
    if sent > 1:
        return NextAction(replace(state, suspect_rows=sent, refusals=0, failures=0), at_least=response.retry_after)
    refusals, rejections = state.refusals + 1, state.consecutive_rejections
    if refusals >= policy.confirmations:
        left = max(0, state.suspect_rows - 1)
        return NextAction(LaneState(suspect_rows=left, consecutive_rejections=rejections + 1), dead_letters=1)
    limit = exponential(policy.confirm_first, refusals - 1 + rejections, policy.confirm_longest)
    return NextAction(
        replace(state, suspect_rows=1, refusals=refusals, failures=0),
        backoff_limit=limit,
        at_least=response.retry_after,
    )
