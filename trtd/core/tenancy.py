"""All that the router's mind knows of one tenant. `trtd.core.dispatch` changes it, `trtd.core.accounting` checks it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from trtd.core.admission import Pace
from trtd.core.histogram import Histogram
from trtd.core.ids import RequestId, TenantName, WorkerId
from trtd.core.inflight import Holder, PoisonTable, SuspectLane
from trtd.core.offenders import Offenders
from trtd.core.requests import Request, TenantCounters, TenantLimits
from trtd.core.scheduling import TenantQueue

OTHER_MODEL = "other"
MAX_OUTCOMES = 256
"""Most pairs of model and outcome counted apart. Clients choose the model's name: further ones count as OTHER_MODEL."""


class Gate(StrEnum):
    """Whether a tenant takes new requests. UNTOLD, in a router just started: it does until it is told otherwise."""

    UNTOLD = "untold"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Tenant:
    """One tenant: what it was told, what it holds, what it counted.

    Attributes:
        name: whose.
        limits: as configured.
        gate: as the supervisor said.
        is_available: as the supervisor said; True until it says otherwise.
        reason: why it is not available.
        retry_after_s: when it may be, where that is known.
        awaits_resends: a former router's clients may still come back; emptiness is not announced yet.
        resends_until: when it stops waiting for them.
        is_announced: since the gate was closed, emptiness has been announced.
        requests: every accepted request without an answer, by id.
        queue: those that wait, innocent.
        lane: those that wait, suspect.
        holders: its workers, and through their leases all other requests.
        lane_holder: the worker that the lane has taken for itself.
        lane_replicas: replicas that died with suspects in their hands; the lane waits for their successors.
        lane_patience_until: when it stops waiting for them and takes any worker.
        gathers_until: until when its queue is kept together, because its workers are busy.
        held_bytes: payload of everything queued or leased, ghosts included.
        poison: inputs that ended workers.
        offenders: clients that did so again and again.
        counters: see `TenantCounters`.
        durations: seconds from receipt to answer, of all accepted requests.
        queue_times: seconds from receipt until a worker was first given the request.
        outcomes: answers, refusals at the door included, by model and outcome (`ok` or an error code).
        pace: how fast it is answered while it is busy.
    """

    name: TenantName
    limits: TenantLimits
    gate: Gate = Gate.UNTOLD
    is_available: bool = True
    reason: str = ""
    retry_after_s: float | None = None
    awaits_resends: bool = False
    resends_until: float = 0.0
    is_announced: bool = False
    requests: dict[RequestId, Request] = field(default_factory=dict)
    queue: TenantQueue = field(default_factory=TenantQueue)
    lane: SuspectLane = field(default_factory=SuspectLane)
    holders: dict[WorkerId, Holder] = field(default_factory=dict)
    lane_holder: Holder | None = None
    lane_replicas: set[int] = field(default_factory=set)
    lane_patience_until: float = 0.0
    gathers_until: float = 0.0
    held_bytes: int = 0
    poison: PoisonTable = field(default_factory=PoisonTable)
    offenders: Offenders = field(default_factory=Offenders)
    counters: TenantCounters = field(default_factory=TenantCounters)
    durations: Histogram = field(default_factory=Histogram)
    queue_times: Histogram = field(default_factory=Histogram)
    outcomes: dict[tuple[str, str], int] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    @property
    def queued(self) -> int:
        """How many requests wait for a worker."""
        return len(self.queue) + len(self.lane)

    @property
    def leased(self) -> int:
        """How many unanswered requests workers hold."""
        return len(self.requests) - self.queued

    def count_outcome(self, model: str, outcome: str, answers: int = 1) -> None:
        """Count so many answers."""
        key = (model, outcome)
        count = self.outcomes.get(key)
        if count is None:
            if len(self.outcomes) >= MAX_OUTCOMES:
                key = (OTHER_MODEL, outcome)
            count = self.outcomes.get(key, 0)
        self.outcomes[key] = count + answers

    def candidates(self) -> list[Holder]:
        """Workers that may be given normal work, as far as they have room."""
        return [holder for holder in self.holders.values() if holder.is_open and holder is not self.lane_holder]

    def busy_until(self) -> float:
        """Until when every worker that may be given normal work has enough to go on with; in the past without one."""
        slots = self.limits.slots
        return min((holder.gathers_until(slots) for holder in self.candidates()), default=-math.inf)
