"""What the router's mind works on: limits, requests, results, counters, and the effects that its shell performs.

Types only. `trtd.core.dispatch` decides with them and hands them on under its own name too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.errors import ErrorCode

MAX_DISPATCHED = 64
"""Most requests in one `Dispatch`; the wire's bound on the entries of a message (`trtd.wire.messages.MAX_ENTRIES`)."""


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
        slots: batches that one worker runs at the same time.
    """

    weight: int = 1
    max_requests: int = 1024
    max_bytes: int = 256 * 1024 * 1024
    default_timeout_s: float = 30.0
    max_timeout_s: float = 600.0
    max_attempts: int = 5
    max_outstanding: int = 64
    poison_s: float = 600.0
    slots: int = 1


@dataclass(slots=True, eq=False)
class Request:
    """One request, from its receipt to its answer. Compared by identity.

    Attributes:
        id: the client's id.
        tenant: whose.
        owner: who sent it (kernel-checked uid or CURVE key); a resend counts only from the same owner.
        route: where the answer goes: opaque to the core; the newest connection of a client that resent.
        payload: opaque: header and tensor frames. Emptied by the core when nobody needs it any more.
        payload_bytes: their size.
        priority: 0 is normal; a higher one leaves the queue first.
        received_at: instant of its receipt.
        deadline: instant by which it is answered.
        model: name of the model it asks for; used for counting only.
        is_resent: its client says that it sent this id before, on a connection that broke.
        memory: opaque: what has to live as long as the payload is needed, and is let go with it.
        attempts: workers it was given to.
        leased_at: when it was last given to a worker; 0 before the first time.
        lease: the present lease, None while it has none.
        lone_deaths: workers that died while this was the only request they held, of faults that an input can cause.
        deaths: all workers that died of such faults while they held it.
        is_suspect: a worker died while it held this one; it runs apart from the others until it is answered.
        digest: fingerprint of its payload, empty until one is needed. Of a suspect it is taken anew each time that a
            worker is given it: what is in shared memory may have changed.
        is_answered: its client got the one answer. A lease may outlive that (a ghost): its worker is still at it.
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
    model: str = ""
    is_resent: bool = False
    memory: Any = None
    attempts: int = 0
    leased_at: float = 0.0
    lease: LeaseId | None = None
    lone_deaths: int = 0
    deaths: tuple[WorkerId, ...] = ()
    is_suspect: bool = False
    digest: bytes = b""
    is_answered: bool = False


ResultFields = tuple[LeaseId, ErrorCode | None, Sequence[Any]]
"""A worker's word on one lease: the lease as it was dispatched; None, or the code of its typed refusal; the answer's
header and tensor frames, opaque. Plain: one is made per answer, and names cost as much as all the rest of making it."""


@dataclass(slots=True)
class TenantCounters:
    """What the router counted for one tenant since it started.

    `accepted == answered + failed + in_flight` holds at every instant; `refused` never entered, `resent` were known
    already, `convicted` are inputs, not requests.
    """

    accepted: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    resent: int = 0
    replayed: int = 0
    expired: int = 0
    stale: int = 0
    convicted: int = 0


# Effects, performed by the router's shell in order. Not frozen: one or two are made per request, and freezing doubles
# the price.


@dataclass(slots=True)
class Dispatch:
    """Hand these requests to a worker in one message; each is leased under the id beside it.

    Attributes:
        worker: to whom.
        requests: at most MAX_DISPATCHED.
        must_run_alone: they are suspects: the worker holds nothing else, and keeps them apart from what may follow.
        is_enough: with them the worker has enough to go on with, so that further requests would rather gather.
    """

    worker: WorkerId
    requests: Sequence[tuple[LeaseId, Request]]
    must_run_alone: bool = False
    is_enough: bool = False


@dataclass(slots=True)
class Deliver:
    """Send a worker's answer (a result or its typed refusal) to the request's client."""

    request: Request
    frames: Sequence[Any]


@dataclass(slots=True)
class Refuse:
    """Send a typed error of the router's own to a client. The request was accepted, or is refused at the door."""

    request: Request
    code: ErrorCode
    message: str
    retry_after_s: float | None


@dataclass(slots=True)
class AnnounceTenantEmpty:
    """Tell the supervisor: the tenant's gate is closed and its last answer is out."""

    tenant: TenantName


@dataclass(slots=True)
class AnnounceWorkerEmpty:
    """Tell the supervisor: the closed worker holds no lease."""

    worker: WorkerId


@dataclass(slots=True)
class BlameClient:
    """Tell the supervisor who ended these lives of the tenant's workers, so that the tenant does not pay for it.

    Attributes:
        tenant: whose workers.
        owner: the client.
        model: that was asked.
        deaths: the lives; one may be told again.
        barred_s: for how long nothing more is taken of the client; 0 where one input was convicted, and no more.
    """

    tenant: TenantName
    owner: Hashable
    model: str
    deaths: tuple[WorkerId, ...]
    barred_s: float


DispatchEffect = Dispatch | Deliver | Refuse | AnnounceTenantEmpty | AnnounceWorkerEmpty | BlameClient
