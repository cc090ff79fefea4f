"""What the supervisor tells its HTTP child (`trtd.health`): questions and answers, one JSON object per line.

The child asks `{"ask": WORD}`, one question at a time, and reads one line: the record of that word. The supervisor does
nothing else for it, so a child that is taken over by its HTTP peers can ask these questions and no more.
"""

from __future__ import annotations

from typing import TypedDict

from trtd.core.histogram import BOUNDS_S
from trtd.wire.status import Status

ASK_STATUS = "status"
"""Answered with `trtd.wire.status.Status`."""
ASK_METRICS = "metrics"
"""Answered with `Metrics`."""
ASK_BEAT = "beat"
"""Answered with an empty object: the supervisor's loop turns, and it sees that its child lives."""

MAX_QUESTION_BYTES = 256
MAX_ANSWER_BYTES = 1 << 26

EVERY_NTH_BOUND = 4
"""The router's buckets are finer than Prometheus needs; being cumulative, some can be left out."""
METRIC_BOUNDS_S = BOUNDS_S[::EVERY_NTH_BOUND]


class Duration(TypedDict):
    """A histogram: cumulative counts for `METRIC_BOUNDS_S`, then of all; and the sum."""

    buckets: list[int]
    sum_s: float


class TenantMetrics(TypedDict):
    """What the status record does not have, being too long for people.

    Attributes:
        name: the tenant.
        outcomes: answers by model and outcome.
        restarts: of workers, by the kind of the fault before and who is blamed for it.
        duration: from the receipt of a request to its answer.
        queue: from the receipt of a request until a worker had it.
        recovery: from a worker's death to its successor's main(), where it was started at once.
    """

    name: str
    outcomes: list[tuple[str, str, int]]
    restarts: list[tuple[str, str, int]]
    duration: Duration
    queue: Duration
    recovery: Duration


class Metrics(TypedDict):
    """Everything that the metrics are made of."""

    status: Status
    tenants: list[TenantMetrics]
