"""The heart of the router: requests in, exactly one answer each out.

`Dispatcher` composes the accounts (`trtd.core.ledger`, with `trtd.core.admission` at the door), the choice of who gets
what (`trtd.core.assignment`, with the fair order of `trtd.core.scheduling`) and the leases (`trtd.core.inflight`). It
is pure: the shell (`trtd.router`) calls a method per thing that happened, with `now`, then `advance(now)`, and then
performs what stands in `take_effects()`. Payloads are
opaque: the frames of a request or an answer pass through unread.

Promises held here, and checked by `check()` after every simulated event:
  * accepted = answered + failed + in flight (queued or leased), per tenant, always;
  * a request has at most one lease; an answer counts only from the lease's own worker and generation;
  * what a dead worker held goes to a successor, suspects apart from the innocent, at most `max_attempts` times;
  * a deadline is answered when it passes, wherever the request is.

A request that is answered while a worker holds it, because its deadline passed, leaves a ghost: the lease stays, since
the worker is still at it. A ghost takes room, keeps its worker from being empty and is suspected with the rest when the
worker dies; it is never replayed, and its late answer counts as stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trtd.core import accounting
from trtd.core.admission import Refusal
from trtd.core.assignment import Assigner
from trtd.core.disclosure import for_clients
from trtd.core.faults import Fault
from trtd.core.ids import RequestId, TenantName, WorkerId
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT, MAX_DEATHS_KEPT, Holder
from trtd.core.ledger import CLOSED, Ledger, unavailable
from trtd.core.requests import (
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    BlameClient,
    Deliver,
    Dispatch,
    DispatchEffect,
    Refuse,
    Request,
    ResultFields,
    TenantCounters,
    TenantLimits,
)
from trtd.core.suspicion import Suspicion, suspicion_of
from trtd.core.tenancy import Gate, Tenant
from trtd.errors import ErrorCode

__all__ = [
    "AnnounceTenantEmpty",
    "AnnounceWorkerEmpty",
    "BlameClient",
    "Deliver",
    "Dispatch",
    "DispatchEffect",
    "Dispatcher",
    "Refuse",
    "Request",
    "TenantCounters",
    "TenantLimits",
]


class Dispatcher:
    """Decides about every request of every tenant. One per router.

    Args:
        digest: a fingerprint of a request's payload; called only where poison is suspected, for suspects each time that
            a worker is given them.
        first_lease: the first lease's number; others follow by one.
        resend_grace_s: how long after a tenant's configuration clients of a former router may take to come back. A
            tenant with a closed gate is not announced as empty before, and takes what was sent before. 0 in the first
            router of a daemon.
    """

    def __init__(self, digest: Callable[[Request], bytes], first_lease: int, resend_grace_s: float = 0.0) -> None:
        self._resend_grace_s = resend_grace_s
        self._tenants: dict[TenantName, Tenant] = {}
        self._ledger = Ledger(digest)
        self._assigner = Assigner(self._ledger, first_lease)
        self._turns = self._assigner.turns

    # Tenants

    def configure_tenant(self, tenant: TenantName, limits: TenantLimits, now: float) -> None:
        """A tenant is new, or its limits have changed.

        Of a new one nothing is known yet but its limits: it queues what comes, within them, until its gate and its
        availability are told. So the clients of a former router lose nothing by being early.
        """
        known = self._tenants.get(tenant)
        if known is not None:
            known.limits = limits
            self._turns.set_weight(tenant, limits.weight)
            self._turns.activate(tenant)
            return
        self._tenants[tenant] = new = Tenant(tenant, limits)
        self._turns.add(tenant, limits.weight)
        if self._resend_grace_s > 0.0:
            new.awaits_resends = True
            new.resends_until = now + self._resend_grace_s
            self._ledger.agenda.look_again(new, new.resends_until)

    def forget_tenant(self, tenant: TenantName, now: float) -> None:
        """A tenant is gone for good; what is left of its requests fails."""
        gone = self._tenants.get(tenant)
        if gone is None:
            return
        code = ErrorCode.DRAINING if gone.gate is Gate.CLOSED else ErrorCode.UNAVAILABLE
        gone.is_announced = True
        refusal = Refusal(code, f"the tenant {tenant} was removed")
        self._ledger.fail_waiting(gone, refusal, now)
        for request in list(gone.requests.values()):
            request.lease = None
            self._ledger.fail(gone, request, refusal, now)
        del self._tenants[tenant]
        self._turns.remove(tenant)

    def set_gate(self, tenant: TenantName, is_open: bool, now: float) -> None:  # noqa: ARG002 - all events carry it
        """Take new requests of a tenant, or refuse them and announce when the accepted ones are answered.

        Told again that it is closed, it announces again. Under a closed gate a resent request that is not known here
        still enters while clients of a former router come back, which may have accepted it; later it is a new one.
        """
        known = self._tenants.get(tenant)
        if known is None:
            return
        known.gate = Gate.OPEN if is_open else Gate.CLOSED
        known.is_announced = False
        self._ledger.announce_tenant_if_empty(known)

    def set_availability(
        self, tenant: TenantName, is_available: bool, reason: str, retry_after_s: float | None, now: float
    ) -> None:
        """Whether workers of a tenant can be expected; if not, what waits fails, and what workers hold stays theirs."""
        known = self._tenants.get(tenant)
        if known is None:
            return
        known.is_available = is_available
        known.reason = reason
        known.retry_after_s = retry_after_s
        self._turns.activate(tenant)
        if not is_available:
            self._ledger.fail_waiting(known, unavailable(known), now)

    def release_poison(self, tenant: TenantName) -> None:
        """An operator lets a tenant's quarantined inputs pass again, and the clients that are barred for theirs."""
        known = self._tenants.get(tenant)
        if known is not None:
            known.poison.clear()
            known.offenders.clear()

    # Workers

    def admit_worker(self, worker: WorkerId, now: float) -> None:  # noqa: ARG002 - all events carry it
        """The worker may be given work: the supervisor vouches for it, and it is connected."""
        tenant = self._tenants.get(worker.tenant)
        if tenant is None:
            return
        for other in list(tenant.holders.values()):
            if other.id.key == worker.key and other.id.generation < worker.generation and not other.leases:
                self._drop(tenant, other)
        holder = tenant.holders.setdefault(worker, Holder(worker))
        holder.is_admitted = True
        self._turns.activate(worker.tenant)

    def close_worker(self, worker: WorkerId, now: float) -> None:  # noqa: ARG002 - all events carry it
        """Nothing new for this worker; its emptiness is announced, and announced again when this is told again.

        A worker that is not known here holds no lease. It is remembered as closed, should it be admitted late.
        """
        tenant = self._tenants.get(worker.tenant)
        if tenant is None:
            return
        holder = tenant.holders.setdefault(worker, Holder(worker))
        holder.is_closed = True
        holder.is_announced = False
        self._turns.activate(worker.tenant)
        self._ledger.announce_worker_if_empty(holder)

    def revoke_worker(self, worker: WorkerId, fault: Fault, now: float) -> None:
        """This life of the worker is over; what it held is replayed or fails.

        Args:
            worker: which life.
            fault: why. What clients may know of it becomes part of WORKER_LOST and POISONOUS. What it says about the
                requests that the worker held (`trtd.core.suspicion`) decides whether they become suspects or are
                replayed as they are, and whether it counts against the one that was alone with it.
            now: monotonic seconds.
        """
        tenant, holder = self._find(worker)
        if tenant is None or holder is None:
            return
        self._drop(tenant, holder)
        leased = list(holder.leases.values())
        holder.leases.clear()
        suspicion = suspicion_of(fault)
        blames_requests = suspicion is not Suspicion.NONE
        if suspicion is Suspicion.STRONG:
            for request in leased:
                request.deaths = (*request.deaths[1 - MAX_DEATHS_KEPT :], worker)
            if len(leased) == 1:
                self._ledger.blame(tenant, leased[0], worker, now)
        survivors = []
        for request in leased:
            request.lease = None
            if request.is_answered:
                request.is_suspect = request.is_suspect or blames_requests
                self._ledger.release(tenant, request, now, is_ghost=True)
            elif (refusal := self._verdict(tenant, request, for_clients(fault), now)) is not None:
                request.is_suspect = request.is_suspect or blames_requests
                self._ledger.fail(tenant, request, refusal, now)
            else:
                survivors.append(request)
        if blames_requests and survivors:
            self._assigner.suspect(tenant, survivors, worker.replica, now)
        else:
            self._assigner.give_back(tenant, survivors)

    def suspend_worker(self, worker: WorkerId, now: float) -> None:  # noqa: ARG002 - all events carry it
        """The worker's connection is gone and nobody has said why: nothing new for it.

        What it holds stays leased until the supervisor says that it died (`revoke_worker`: then its requests may be
        suspects), or until it connects again (`detach_worker`).
        """
        _, holder = self._find(worker)
        if holder is not None:
            holder.is_admitted = False

    def detach_worker(self, worker: WorkerId, now: float) -> None:
        """The worker lost its connection and has made another one: its leases are queued again, at the front.

        Nobody is suspected and the attempt does not count. It has to be admitted again.
        """
        tenant, holder = self._find(worker)
        if tenant is None or holder is None:
            return
        leased = list(holder.leases.values())
        holder.leases.clear()
        holder.is_admitted = False
        if holder.is_closed:
            self._ledger.announce_worker_if_empty(holder)
        else:
            self._drop(tenant, holder)
        survivors = []
        for request in leased:
            request.lease = None
            request.attempts -= 1
            if request.is_answered:
                self._ledger.release(tenant, request, now, is_ghost=True)
            elif not tenant.is_available:
                self._ledger.fail(tenant, request, unavailable(tenant), now)
            else:
                survivors.append(request)
        self._assigner.give_back(tenant, survivors)

    # Requests

    def submit(self, request: Request, now: float) -> None:
        """A request arrived: accept it, recognise it as known, or refuse it."""
        tenant = self._tenants.get(request.tenant)
        if tenant is None:
            text = f"the tenant {request.tenant} is not configured"
            self._ledger.effects.append(Refuse(request, ErrorCode.UNAVAILABLE, text, None))
            return
        known = tenant.requests.get(request.id)
        if known is not None:
            if known.owner == request.owner:
                known.route = request.route
                tenant.counters.resent += 1
            else:
                text = f"the id {request.id.hex()} is in use by another client"
                self._ledger.refuse(tenant, request, Refusal(ErrorCode.MALFORMED, text))
        elif self._ledger.enter(tenant, request, now):
            if request.is_suspect:
                tenant.lane.append([request])
            elif self._turns.ring or not self._assigner.lease_at_once(tenant, request, now):
                tenant.queue.push(request)
            else:
                return
            self._turns.activate(request.tenant)

    def convict(self, request: Request, now: float) -> None:
        """A request arrived that has ended routers: it is refused, and its like for a while."""
        tenant = self._tenants.get(request.tenant)
        if tenant is None:
            self.submit(request, now)
            return
        self._ledger.convict(tenant, request, now)

    def complete(self, worker: WorkerId, results: Sequence[ResultFields], now: float) -> None:
        """A worker answered. Only an open lease of this very life counts; everything else is stale."""
        tenant = self._tenants.get(worker.tenant)
        if tenant is None:
            return
        holder = tenant.holders.get(worker)
        if holder is None:
            tenant.counters.stale += len(results)
            return
        answered = self._ledger.answer_all(tenant, holder.leases, results, now)
        holder.note_heard()
        if answered:
            tenant.pace.count(answered, now)
        if tenant.queue.levels or tenant.lane.groups or tenant.lane_holder is not None:
            self._turns.activate(worker.tenant)
        if holder.is_closed:
            self._ledger.announce_worker_if_empty(holder)
        if tenant.gate is CLOSED:
            self._ledger.announce_tenant_if_empty(tenant)

    # Time and order

    def advance(self, now: float) -> None:
        """Answer what is out of time, then hand out what workers have room for. The last call before `take_effects`."""
        agenda = self._ledger.agenda
        while agenda.soonest <= now and (due := agenda.take_due(now)) is not None:
            if isinstance(due, Request):
                self._ledger.expire(self._tenants[due.tenant], due, now)
                self._turns.activate(due.tenant)
            elif self._tenants.get(due.name) is due:
                self._reconsider(due, now)
        if self._turns.ring or self._assigner.loads:
            self._assigner.assign(self._tenants, now)

    def busy_until(self, tenant: TenantName) -> float:
        """Until when a further request of the tenant would wait here anyway; in the past where it would not."""
        known = self._tenants.get(tenant)
        return -math.inf if known is None else known.busy_until()

    def next_deadline(self) -> float | None:
        """When `advance` has to be called even if nothing happens; None for never."""
        soonest = self._ledger.agenda.soonest
        return None if soonest == math.inf else soonest

    @property
    def owes_answers(self) -> bool:
        """Whether any request waits for its answer."""
        return self._ledger.unanswered > 0

    def take_effects(self) -> list[DispatchEffect]:
        """What the shell has to perform, in order; each is handed out once."""
        effects = self._ledger.effects
        self._ledger.effects = []
        return effects

    # Questions

    def tenant(self, tenant: TenantName) -> Tenant:
        """Everything known of a tenant, to be read only; KeyError for an unknown one."""
        return self._tenants[tenant]

    def unfinished(self, tenant: TenantName) -> list[RequestId]:
        """Ids of the accepted requests without an answer, in the order of their acceptance."""
        return list(self._tenants[tenant].requests)

    def check(self) -> None:
        """Recompute every invariant from scratch.

        Raises:
            AssertionError: one does not hold; the text says which.
        """
        watched = self._ledger.agenda.watched()
        for tenant in self._tenants.values():
            accounting.check_tenant(tenant, watched, self._turns.is_active(tenant.name))
        unanswered = sum(len(tenant.requests) for tenant in self._tenants.values())
        if unanswered != self._ledger.unanswered:
            raise AssertionError(f"{unanswered} requests wait for answers, and {self._ledger.unanswered} are counted")

    def _find(self, worker: WorkerId) -> tuple[Tenant | None, Holder | None]:
        tenant = self._tenants.get(worker.tenant)
        return tenant, tenant.holders.get(worker) if tenant is not None else None

    def _reconsider(self, tenant: Tenant, now: float) -> None:
        """An instant set for a tenant has come: its clients had time to return, or its lane has waited long enough."""
        if now >= tenant.resends_until:
            tenant.awaits_resends = False
        self._turns.activate(tenant.name)
        self._ledger.announce_tenant_if_empty(tenant)

    def _verdict(self, tenant: Tenant, request: Request, cause: str, now: float) -> Refusal | None:
        """Why a request whose worker is over is not given to another one, None when it is."""
        if request.lone_deaths >= LONE_DEATHS_TO_CONVICT:
            return Refusal(ErrorCode.POISONOUS, f"this input has ended workers; the last one: {cause}")
        if not tenant.is_available:
            return unavailable(tenant)
        if (refusal := self._ledger.bar(tenant, request, now)) is not None:
            return refusal
        if request.attempts >= tenant.limits.max_attempts:
            text = f"{request.attempts} workers that held the request ended; the last one: {cause}"
            return Refusal(ErrorCode.WORKER_LOST, text)
        return None

    @staticmethod
    def _drop(tenant: Tenant, holder: Holder) -> None:
        del tenant.holders[holder.id]
        if tenant.lane_holder is holder:
            tenant.lane_holder = None
