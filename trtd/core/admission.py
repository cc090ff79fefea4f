"""The decision at the door: which requests a tenant takes, and what the others are told.

Pure judgement. Recognising resends and keeping accounts is left to `trtd.core.dispatch`.
"""

from __future__ import annotations

from typing import NamedTuple

from trtd.core.requests import TenantLimits
from trtd.errors import ErrorCode

MAX_RETRY_S = 30.0
"""Longest wait that a client is told; what is known about the pace says little about a later time."""

_PACE_WINDOW_S = 5.0


class Refusal(NamedTuple):
    """A typed no.

    Attributes:
        code: which one.
        message: one line for the client.
        retry_after_s: when another try can succeed, where that is known.
    """

    code: ErrorCode
    message: str
    retry_after_s: float | None = None


class Pace:
    """How fast a tenant's requests were answered while it was busy, over the last seconds."""

    __slots__ = ("_answered", "_per_answer_s", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._answered = 0
        self._per_answer_s: float | None = None

    def become_busy(self, now: float) -> None:
        """The tenant holds a request again after it held none."""
        self._since = now
        self._answered = 0

    def count(self, answers: int, now: float) -> None:
        """So many requests were answered."""
        self._answered += answers
        if now - self._since >= _PACE_WINDOW_S:
            self._per_answer_s = (now - self._since) / self._answered
            self.become_busy(now)

    def wait_s(self, backlog: int, now: float) -> float | None:
        """How long a backlog of so many requests takes at this pace; None where the pace is not known."""
        per_answer_s = self._per_answer_s
        if self._answered:
            per_answer_s = (now - self._since) / self._answered
        if per_answer_s is None:
            return None
        return min(MAX_RETRY_S, backlog * per_answer_s)


def allowed_timeout_s(limits: TenantLimits, timeout_s: float | None) -> float:
    """How long after its receipt a request is answered: its own timeout or the default, at most the longest allowed."""
    return min(limits.default_timeout_s if timeout_s is None else timeout_s, limits.max_timeout_s)


def refuse_for_bounds(
    limits: TenantLimits, count: int, held_bytes: int, payload_bytes: int, pace: Pace, now: float
) -> Refusal | None:
    """The refusal of a request that would exceed the tenant's bounds, None when it fits.

    Args:
        limits: the tenant's.
        count: requests that it holds.
        held_bytes: their payload.
        payload_bytes: the new request's.
        pace: at which it answers; the hint is the time in which half of the backlog is answered.
        now: monotonic seconds.
    """
    if payload_bytes > limits.max_bytes:
        return Refusal(
            ErrorCode.TOO_LARGE,
            f"the request has {payload_bytes} bytes, and the tenant's queue holds {limits.max_bytes}",
        )
    if count >= limits.max_requests:
        message = f"the tenant holds {count} requests and takes no more than {limits.max_requests}"
    elif held_bytes + payload_bytes > limits.max_bytes:
        message = f"the tenant holds {held_bytes} bytes of requests; {payload_bytes} more exceed {limits.max_bytes}"
    else:
        return None
    return Refusal(ErrorCode.OVERLOADED, message, pace.wait_s((count + 1) // 2, now))
