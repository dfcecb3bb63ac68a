# SPDX-License-Identifier: Apache-2.0
"""What an answer means for the rows that were sent, and when to ask again. No I/O.

A 400 names no row. The lane remembers how many rows at its head hold the bad one and sends half of them, until it
stands alone. Alone it is asked again before it is set aside: SAM answers 400 also while a workspace restarts. Where row
after row is refused it is rather the workspace than the rows, so each further one is asked over a longer time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


@dataclass(frozen=True)
class Pace:
    """Seconds; `confirmations` is how often a row alone must be refused before it is set aside."""

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
    def words(self) -> str:
        """Return it for people."""
        return f"{self.status or 'no answer'}{': ' if self.message else ''}{self.message}"


class Verdict(Enum):
    """What an answer means."""

    DELIVERED = "delivered"
    RETRY = "retry"  # trouble that passes
    HOLD = "hold"  # the door is closed to us: everything is kept until somebody opens it
    REFUSED = "refused"  # a row of these is bad
    FULL = "full"  # the session takes no more, ever
    UNSUPPORTED = "unsupported"  # that control plane has no such door


def judge(reply: ResponseInfo, *, optional: bool = False) -> Verdict:  # noqa: PLR0911  (a table in order)
    """Return what an answer means; `optional` for a channel that a control plane need not have."""
    status = reply.status
    if status is None or (200 <= status < 400 and not reply.accepted):
        return Verdict.RETRY  # nobody, or not a control plane: a portal answers 200 to everything
    if reply.accepted:
        return Verdict.DELIVERED
    if optional and (status == 404 or (status == 401 and reply.message == "Authentication required")):
        return Verdict.UNSUPPORTED
    if status in (401, 403, 404) or (status == 500 and reply.token_expired):
        return Verdict.HOLD
    if status in (400, 413, 422):
        return Verdict.REFUSED
    if status == 409 and reply.error == "SESSION_MESSAGE_LIMIT_EXCEEDED":
        return Verdict.REFUSED if reply.remaining else Verdict.FULL
    return Verdict.RETRY


@dataclass(frozen=True)
class Progress:
    """Where a lane stands."""

    suspects: int = 0  # so many rows at the head hold a bad one
    refusals: int = 0  # so often the first row was refused alone
    streak: int = 0  # so many rows were set aside since one was taken
    failures: int = 0  # so many answers in succession were no help

    @property
    def about_rows(self) -> tuple[int, int, int]:
        """Return what is known of the rows, which a restart must not forget."""
        return self.suspects, self.refusals, self.streak

    def most(self, limit: int) -> int:
        """Return how many rows the next request may hold."""
        return min(limit, max(1, self.suspects // 2)) if self.suspects else limit


@dataclass(frozen=True)
class Step:
    """What to do: rows to remove as delivered or to set aside, both from the head, and the pause's upper end."""

    progress: Progress
    delivered: int = 0
    set_aside: int = 0
    pause: float = 0.0
    at_least: float = 0.0


def decide(progress: Progress, verdict: Verdict, sent: int, reply: ResponseInfo, pace: Pace) -> Step:  # noqa: PLR0911
    """Return what follows from the verdict on a request with `sent` rows of the lane's head."""
    if verdict is Verdict.DELIVERED:
        return Step(Progress(suspects=max(0, progress.suspects - sent)), delivered=sent)
    if verdict is Verdict.FULL:
        return Step(replace(progress, suspects=0, refusals=0, failures=0), set_aside=sent)
    if verdict is Verdict.UNSUPPORTED:
        return Step(progress, pause=0.1 * pace.unsupported, at_least=pace.unsupported)
    if verdict is not Verdict.REFUSED:
        pause = grown(pace.first, progress.failures, pace.longest)
        return Step(replace(progress, failures=progress.failures + 1), pause=pause, at_least=reply.retry_after)
    if sent > 1:
        return Step(replace(progress, suspects=sent, refusals=0, failures=0), at_least=reply.retry_after)
    refusals = progress.refusals + 1
    if refusals >= pace.confirmations:
        return Step(Progress(suspects=max(0, progress.suspects - 1), streak=progress.streak + 1), set_aside=1)
    pause = grown(pace.confirm_first, refusals - 1 + progress.streak, pace.confirm_longest)
    return Step(replace(progress, suspects=1, refusals=refusals, failures=0), pause=pause, at_least=reply.retry_after)


def grown(first: float, times: int, longest: float) -> float:
    """Return `first` doubled so many times, at most `longest`: a pause's upper end, its length is drawn below it."""
    return min(longest, first * 2.0 ** min(times, 40))


def drawn(step: Step, share: float) -> float:
    """Return the seconds to wait; `share` is drawn from 0 to 1 (full jitter: a fleet comes back spread evenly)."""
    return step.at_least + step.pause * share
