"""The heart of the router: requests in, exactly one answer each out.

`Dispatcher` composes admission (`trtd.core.admission`), the tenants' queues and their fair order (`trtd.core.scheduling`) and the
leases (`trtd.core.inflight`). It is pure: the shell (`trtd.router`) calls a method per thing that happened, with `now`, and
then performs what stands in `take_effects()`. Payloads are opaque: the frames of a request or an answer pass through unread.

Promises held here, and checked by `check()` after every simulated event:
  * accepted = answered + failed + in flight (queued or leased), per tenant, always;
  * a request has at most one lease; an answer counts only from the lease's own worker and generation;
  * what a dead worker held goes to a successor, suspects apart from the innocent, at most `max_attempts` times;
  * a deadline is answered when it passes, wherever the request is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """The router's settings for one tenant.

    Attributes:
        weight: share in the fair order, relative to the other tenants'.
        max_requests: most requests accepted and not answered.
        max_bytes: most payload bytes of those requests.
        default_timeout_s: deadline of a request that names none.
        max_timeout_s: longest deadline a request may ask for.
        max_attempts: workers that one request may be given to, one after the other.
        max_outstanding: most requests leased to one worker at a time.
        poison_s: how long an input that ended workers is refused.
    """

    weight: int = 1
    max_requests: int = 1024
    max_bytes: int = 256 * 1024 * 1024
    default_timeout_s: float = 30.0
    max_timeout_s: float = 600.0
    max_attempts: int = 5
    max_outstanding: int = 64
    poison_s: float = 600.0


@dataclass(slots=True, eq=False)
class Request:
    """One accepted request, from its admission to its answer.

    Attributes:
        id: the client's id.
        tenant: whose.
        owner: who sent it (kernel-checked uid or CURVE key); a resend counts only from the same owner.
        route: where the answer goes: opaque to the core; the newest connection of a client that resent.
        payload: opaque: header and tensor frames.
        payload_bytes: their size.
        priority: 0 is normal; a higher one leaves the queue first.
        received_at: instant of its receipt.
        deadline: instant by which it is answered.
        attempts: workers it was given to.
        leased_at: when it was last given to a worker.
        lease: the present lease, None while it is queued.
        lone_deaths: workers that died while this was the only request they held.
    """

    id: RequestId
    tenant: TenantName
    owner: Hashable
    route: Any
    payload: Sequence[Any]
    payload_bytes: int
    priority: int
    received_at: float
    deadline: float
    attempts: int = 0
    leased_at: float = 0.0
    lease: LeaseId | None = None
    lone_deaths: int = 0


# Effects, performed by the router's shell in order.


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Hand these requests to a worker in one message; each is leased under the id beside it."""

    worker: WorkerId
    requests: tuple[tuple[LeaseId, Request], ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a worker's answer (a result or its typed refusal) to the request's client."""

    request: Request
    frames: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send a typed error of the router's own to a client. The request was accepted, or is refused at the door."""

    request: Request
    code: ErrorCode
    message: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class AnnounceTenantEmpty:
    """Tell the supervisor: the tenant's gate is closed and its last answer is out."""

    tenant: TenantName


@dataclass(frozen=True, slots=True)
class AnnounceWorkerEmpty:
    """Tell the supervisor: the closed worker holds no lease."""

    worker: WorkerId


DispatchEffect = Dispatch | Deliver | Refuse | AnnounceTenantEmpty | AnnounceWorkerEmpty


@dataclass(frozen=True, slots=True)
class Result:
    """A worker's word on one lease.

    Attributes:
        lease: as it was dispatched.
        code: None for a result, else the error code of the worker's typed refusal.
        frames: answer header and tensor frames, opaque.
    """

    lease: LeaseId
    code: ErrorCode | None
    frames: Sequence[Any]


@dataclass(slots=True)
class TenantCounters:
    """What the router counted for one tenant since it started.

    `accepted == answered + failed + in_flight` holds at every instant; `refused` never entered, `resent` were known already.
    """

    accepted: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    resent: int = 0
    replayed: int = 0
    expired: int = 0
    stale: int = 0
