"""The heart of the router: requests in, exactly one answer each out.

`Dispatcher` composes admission (`trtd.core.admission`), the tenants' queues and their fair order
(`trtd.core.scheduling`) and the leases (`trtd.core.inflight`). It is pure: the shell (`trtd.router`) calls a method per
thing that happened, with `now`, then `advance(now)`, and then performs what stands in `take_effects()`. Payloads are
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

import heapq
from collections.abc import Callable, Sequence

from trtd.core import accounting
from trtd.core.admission import Refusal, refuse_for_bounds
from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT, SUSPECT_PATIENCE_S, Holder, outstanding, split
from trtd.core.requests import (
    MAX_DISPATCHED,
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    Deliver,
    Dispatch,
    DispatchEffect,
    Refuse,
    Request,
    Result,
    TenantCounters,
    TenantLimits,
)
from trtd.core.scheduling import DeficitRoundRobin
from trtd.core.tenancy import Gate, Tenant
from trtd.errors import ErrorCode

__all__ = [
    "AnnounceTenantEmpty",
    "AnnounceWorkerEmpty",
    "Deliver",
    "Dispatch",
    "DispatchEffect",
    "Dispatcher",
    "Refuse",
    "Request",
    "Result",
    "TenantCounters",
    "TenantLimits",
]

REQUEST_COST_BYTES = 32 * 1024
"""What handling one request costs besides its bytes, as bytes: a small one takes as long as copying about so many."""

TURN_BYTES = 8 * REQUEST_COST_BYTES
"""What one turn allows a tenant of weight 1."""

_MIN_STALE_INSTANTS = 1024


class Dispatcher:
    """Decides about every request of every tenant. One per router.

    Args:
        digest: a fingerprint of a request's payload; called only where poison is suspected.
        first_lease: the first lease's number; others follow by one.
        resend_grace_s: how long after a tenant's configuration clients of a former router may take to come back. In
        that
            time a tenant with a closed gate is not announced as empty. 0 in the first router of a daemon.
    """

    def __init__(self, digest: Callable[[Request], bytes], first_lease: int, resend_grace_s: float = 0.0) -> None:
        self._digest = digest
        self._next_lease = first_lease
        self._resend_grace_s = resend_grace_s
        self._tenants: dict[TenantName, Tenant] = {}
        self._turns: DeficitRoundRobin[TenantName] = DeficitRoundRobin(TURN_BYTES)
        self._instants: list[tuple[float, int, Request | Tenant]] = []
        self._sequence = 0
        self._stale_instants = 0
        self._loads: dict[Holder, list[tuple[LeaseId, Request]]] = {}
        self._effects: list[DispatchEffect] = []

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
            self._look_again(new, new.resends_until)

    def forget_tenant(self, tenant: TenantName, now: float) -> None:
        """A tenant is gone for good; what is left of its requests fails."""
        gone = self._tenants.get(tenant)
        if gone is None:
            return
        code = ErrorCode.DRAINING if gone.gate is Gate.CLOSED else ErrorCode.UNAVAILABLE
        gone.is_announced = True
        for request in list(gone.requests.values()):
            self._fail(gone, request, Refusal(code, f"the tenant {tenant} was removed"), now)
        del self._tenants[tenant]
        self._turns.remove(tenant)

    def set_gate(self, tenant: TenantName, is_open: bool, now: float) -> None:  # noqa: ARG002 - all events carry it
        """Take new requests of a tenant, or refuse them and announce when the accepted ones are answered.

        Told again that it is closed, it announces again. Under a closed gate a resent request that is not known here
        still enters, until emptiness is announced: it was accepted once, by a former router.
        """
        known = self._tenants.get(tenant)
        if known is None:
            return
        known.gate = Gate.OPEN if is_open else Gate.CLOSED
        known.is_announced = False
        self._announce_tenant_if_empty(known)

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
        if is_available:
            self._turns.activate(tenant)
            return
        for request in [*known.lane, *known.queue]:
            self._take_out(known, request)
            self._fail(known, request, _unavailable(known), now)

    def release_poison(self, tenant: TenantName) -> None:
        """An operator lets a tenant's quarantined inputs pass again."""
        known = self._tenants.get(tenant)
        if known is not None:
            known.poison.clear()

    # Workers

    def admit_worker(self, worker: WorkerId, now: float) -> None:  # noqa: ARG002 - all events carry it
        """The worker may be given work: the supervisor vouches for it, and it is connected."""
        tenant = self._tenants.get(worker.tenant)
        if tenant is None:
            return
        for other in list(tenant.holders.values()):
            if other.id.key == worker.key and other.id.generation < worker.generation and not other.leases:
                self._drop_holder(tenant, other)
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
        self._announce_worker_if_empty(holder)

    def revoke_worker(self, worker: WorkerId, message: str, now: float, *, blames_requests: bool = True) -> None:
        """This life of the worker is over; what it held is replayed or fails.

        Args:
            worker: which life.
            message: why, in one line; it becomes part of WORKER_LOST and POISONOUS.
            now: monotonic seconds.
            blames_requests: whether what it held can have ended it. If so, its requests become suspects. False where a
                person or the daemon wanted its end: they are replayed as they are.
        """
        tenant = self._tenants.get(worker.tenant)
        holder = tenant.holders.get(worker) if tenant is not None else None
        if tenant is None or holder is None:
            return
        self._drop_holder(tenant, holder)
        leased = list(holder.leases.values())
        holder.leases.clear()
        if blames_requests and len(leased) == 1:
            leased[0].lone_deaths += 1
        survivors = []
        for request in leased:
            request.lease = None
            if request.lone_deaths >= LONE_DEATHS_TO_CONVICT:
                self._fail(
                    tenant, request, Refusal(ErrorCode.POISONOUS, f"this input has ended workers: {message}"), now
                )
            elif request.is_answered:
                self._let_go(tenant, request, now)
            elif not tenant.is_available:
                self._fail(tenant, request, _unavailable(tenant), now)
            elif request.attempts >= tenant.limits.max_attempts:
                text = f"{request.attempts} workers that held the request ended; the last one: {message}"
                self._fail(tenant, request, Refusal(ErrorCode.WORKER_LOST, text), now)
            else:
                survivors.append(request)
        if blames_requests and survivors:
            self._suspect(tenant, survivors, worker.replica, now)
        else:
            self._give_back(tenant, survivors)

    def detach_worker(self, worker: WorkerId, now: float) -> None:
        """The worker's connection is gone, though nobody says that it died: its leases are queued again, at the front.

        Nobody is suspected and the attempt does not count. It has to be admitted again.
        """
        tenant = self._tenants.get(worker.tenant)
        holder = tenant.holders.get(worker) if tenant is not None else None
        if tenant is None or holder is None:
            return
        leased = list(holder.leases.values())
        holder.leases.clear()
        holder.is_admitted = False
        if tenant.lane_holder is holder:
            tenant.lane_holder = None
        if not holder.is_closed:
            del tenant.holders[worker]
        for request in leased:
            request.lease = None
            request.attempts -= 1
            if request.is_answered:
                self._let_go(tenant, request, now)
            elif not tenant.is_available:
                self._fail(tenant, request, _unavailable(tenant), now)
        self._give_back(tenant, [request for request in leased if not request.is_answered])
        self._announce_worker_if_empty(holder)

    # Requests

    def submit(self, request: Request, now: float) -> None:
        """A request arrived: accept it, recognise it as known, or refuse it."""
        tenant = self._tenants.get(request.tenant)
        if tenant is None:
            text = f"the tenant {request.tenant} is not configured"
            self._effects.append(Refuse(request, ErrorCode.UNAVAILABLE, text, None))
            return
        known = tenant.requests.get(request.id)
        if known is not None and known.owner == request.owner:
            known.route = request.route
            tenant.counters.resent += 1
            return
        if known is not None:
            refusal: Refusal | None = Refusal(
                ErrorCode.MALFORMED, f"the id {request.id.hex()} is in use by another client"
            )
        else:
            refusal = self._judge(tenant, request, now)
        if refusal is not None:
            tenant.counters.refused += 1
            tenant.count_outcome(request.model, refusal.code)
            self._effects.append(Refuse(request, *refusal))
            return
        if not tenant.requests:
            tenant.pace.become_busy(now)
        tenant.requests[request.id] = request
        tenant.counters.accepted += 1
        tenant.held_bytes += request.payload_bytes
        if request.lone_deaths:
            tenant.lane.append([request])
        else:
            tenant.queue.push(request)
        self._sequence += 1
        heapq.heappush(self._instants, (request.deadline, self._sequence, request))
        self._turns.activate(tenant.name)

    def complete(self, worker: WorkerId, results: Sequence[Result], now: float) -> None:
        """A worker answered. Only an open lease of this very life counts; everything else is stale."""
        tenant = self._tenants.get(worker.tenant)
        if tenant is None:
            return
        counters = tenant.counters
        holder = tenant.holders.get(worker)
        if holder is None:
            counters.stale += len(results)
            return
        leases = holder.leases
        answered = 0
        for result in results:
            request = leases.pop(result.lease, None)
            if request is None:
                counters.stale += 1
                continue
            request.lease = None
            if request.lone_deaths:
                tenant.poison.forgive(self._digest(request))
                request.lone_deaths = 0
            if request.is_answered:
                counters.stale += 1
                self._let_go(tenant, request, now)
                continue
            answered += 1
            counters.answered += 1
            self._settle(tenant, request, "ok" if result.code is None else result.code, now)
            self._effects.append(Deliver(request, result.frames))
        if answered:
            tenant.pace.count(answered, now)
        self._turns.activate(tenant.name)
        if holder.is_closed:
            self._announce_worker_if_empty(holder)
        if tenant.gate is Gate.CLOSED:
            self._announce_tenant_if_empty(tenant)

    # Time and order

    def advance(self, now: float) -> None:
        """Answer what is out of time, then hand out what workers have room for. The last call before `take_effects`."""
        instants = self._instants
        while instants and instants[0][0] <= now:
            _, _, due = heapq.heappop(instants)
            if isinstance(due, Tenant):
                self._reconsider(due, now)
            elif due.is_answered:
                self._stale_instants -= 1
            else:
                self._expire(due, now)
        while (name := self._turns.next()) is not None:
            self._serve(self._tenants[name], now)
        for holder, load in self._loads.items():
            for first in range(0, len(load), MAX_DISPATCHED):
                part = tuple(load[first : first + MAX_DISPATCHED])
                self._effects.append(Dispatch(holder.id, part, part[0][1].is_suspect))
        self._loads.clear()

    def next_deadline(self) -> float | None:
        """When `advance` has to be called even if nothing happens; None for never."""
        instants = self._instants
        while instants:
            due = instants[0][2]
            if isinstance(due, Tenant) or not due.is_answered:
                return instants[0][0]
            heapq.heappop(instants)
            self._stale_instants -= 1
        return None

    def take_effects(self) -> list[DispatchEffect]:
        """What the shell has to perform, in order; each is handed out once."""
        effects = self._effects
        self._effects = []
        return effects

    # Questions

    def tenant(self, tenant: TenantName) -> Tenant:
        """Everything known of a tenant, to be read only; KeyError for an unknown one."""
        return self._tenants[tenant]

    def counters(self, tenant: TenantName) -> TenantCounters:
        """A tenant's counters."""
        return self._tenants[tenant].counters

    def queued(self, tenant: TenantName) -> int:
        """How many requests wait for a worker, suspects included."""
        return self._tenants[tenant].queued

    def leased(self, tenant: TenantName) -> int:
        """How many unanswered requests workers hold."""
        return self._tenants[tenant].leased

    def held_bytes(self, tenant: TenantName) -> int:
        """Payload bytes of everything queued or leased; a ghost counts until its worker lets go of it."""
        return self._tenants[tenant].held_bytes

    def unfinished(self, tenant: TenantName) -> list[RequestId]:
        """Ids of the accepted requests without an answer, in the order of their acceptance."""
        return list(self._tenants[tenant].requests)

    def check(self) -> None:
        """Recompute every invariant from scratch.

        Raises:
            AssertionError: one does not hold; the text says which.
        """
        pending = {id(due) for _, _, due in self._instants}
        for tenant in self._tenants.values():
            accounting.check_tenant(tenant, pending, self._turns.is_active(tenant.name))

    # Inside

    def _judge(self, tenant: Tenant, request: Request, now: float) -> Refusal | None:
        if tenant.gate is Gate.CLOSED and (tenant.is_announced or not request.is_resent):
            return Refusal(ErrorCode.DRAINING, f"the tenant {tenant.name} takes no new requests")
        if not tenant.is_available:
            return _unavailable(tenant)
        if tenant.poison:
            tenant.poison.forget_expired(now)
            request.lone_deaths = tenant.poison.lone_deaths(self._digest(request), now)
            if request.lone_deaths >= LONE_DEATHS_TO_CONVICT:
                return Refusal(ErrorCode.POISONOUS, "this input has ended workers and is refused for a while")
        refusal = refuse_for_bounds(
            tenant.limits, len(tenant.requests), tenant.held_bytes, request.payload_bytes, tenant.pace, now
        )
        if refusal is None and request.deadline <= now:
            return Refusal(ErrorCode.DEADLINE_EXCEEDED, "the deadline had passed when the request arrived")
        return refusal

    def _serve(self, tenant: Tenant, now: float) -> None:
        """One tenant's turn: hand out until it is used up, or nothing can be handed out."""
        allowance = self._turns.allowance(tenant.name)
        spent = 0
        if tenant.lane or tenant.lane_holder is not None:
            spent = self._serve_lane(tenant, now)
        queue = tenant.queue
        candidates = tenant.candidates() if queue else ()
        room = tenant.limits.max_outstanding
        while queue and candidates and spent < allowance:
            holder = candidates[0] if len(candidates) == 1 else min(candidates, key=outstanding)
            if len(holder.leases) >= room:
                break
            spent += self._lease(tenant, holder, queue.pop(), now)
        if spent:
            self._turns.charge(tenant.name, spent)
        if spent < allowance:
            self._turns.deactivate(tenant.name)

    def _serve_lane(self, tenant: Tenant, now: float) -> int:
        """Give the next group of suspects to a worker that holds nothing else; the bytes it cost."""
        holder = tenant.lane_holder
        if holder is not None and holder.leases:
            return 0
        if holder is not None and (holder.is_closed or not tenant.lane):
            tenant.lane_holder = holder = None
        if not tenant.lane:
            return 0
        if holder is None:
            holder = tenant.lane_holder = self._choose_for_lane(tenant, now)
        if holder is None or holder.leases:
            return 0
        return sum([self._lease(tenant, holder, request, now) for request in tenant.lane.pop()])

    def _choose_for_lane(self, tenant: Tenant, now: float) -> Holder | None:
        """A successor of a worker that died with suspects; any worker once there is none to wait for."""
        candidates = tenant.candidates()
        successors = [holder for holder in candidates if holder.id.replica in tenant.lane_replicas]
        if successors:
            candidates = successors
        elif tenant.lane_replicas and now < tenant.lane_patience_until:
            return None
        return min(candidates, key=outstanding, default=None)

    def _lease(self, tenant: Tenant, holder: Holder, request: Request, now: float) -> int:
        lease = LeaseId(self._next_lease)
        self._next_lease = lease + 1
        if request.attempts:
            tenant.counters.replayed += 1
        elif request.leased_at == 0.0:
            tenant.queue_times.observe(now - request.received_at)
        request.lease = lease
        request.leased_at = now
        request.attempts += 1
        holder.leases[lease] = request
        load = self._loads.get(holder)
        if load is None:
            load = self._loads[holder] = []
        load.append((lease, request))
        return REQUEST_COST_BYTES + request.payload_bytes

    def _suspect(self, tenant: Tenant, requests: list[Request], replica: int, now: float) -> None:
        if not tenant.lane:
            tenant.lane_replicas.clear()
        groups = split(requests)
        if requests[0].is_suspect:
            tenant.lane.push_front(groups)
        else:
            for group in groups:
                tenant.lane.append(group)
        tenant.lane_replicas.add(replica)
        tenant.lane_patience_until = now + SUSPECT_PATIENCE_S
        self._look_again(tenant, tenant.lane_patience_until)
        self._turns.activate(tenant.name)

    def _give_back(self, tenant: Tenant, requests: list[Request]) -> None:
        if requests and requests[0].is_suspect:
            tenant.lane.push_front([requests])
        else:
            for request in reversed(requests):
                tenant.queue.push_front(request)
        self._turns.activate(tenant.name)

    def _drop_holder(self, tenant: Tenant, holder: Holder) -> None:
        del tenant.holders[holder.id]
        if tenant.lane_holder is holder:
            tenant.lane_holder = None

    def _expire(self, request: Request, now: float) -> None:
        tenant = self._tenants[request.tenant]
        tenant.counters.expired += 1
        self._stale_instants -= 1
        where = "no worker had taken it" if request.lease is None else "a worker was at it"
        if request.lease is None:
            self._take_out(tenant, request)
        text = f"no answer within {request.deadline - request.received_at:.3f} s; {where}"
        self._fail(tenant, request, Refusal(ErrorCode.DEADLINE_EXCEEDED, text), now)

    def _take_out(self, tenant: Tenant, request: Request) -> None:
        if request.is_suspect:
            tenant.lane.remove(request)
        else:
            tenant.queue.remove(request)

    def _fail(self, tenant: Tenant, request: Request, refusal: Refusal, now: float) -> None:
        """Answer an accepted request with an error. If it is leased, its ghost stays with the worker."""
        if request.is_answered:
            self._let_go(tenant, request, now)
            return
        tenant.counters.failed += 1
        self._settle(tenant, request, refusal.code, now)
        self._effects.append(Refuse(request, *refusal))
        if tenant.gate is Gate.CLOSED:
            self._announce_tenant_if_empty(tenant)

    def _settle(self, tenant: Tenant, request: Request, outcome: str, now: float) -> None:
        request.is_answered = True
        del tenant.requests[request.id]
        tenant.durations.observe(now - request.received_at)
        tenant.count_outcome(request.model, outcome)
        self._stale_instants += 1
        if self._stale_instants > _MIN_STALE_INSTANTS and 2 * self._stale_instants > len(self._instants):
            self._forget_stale_instants()
        if request.lease is None:
            self._let_go(tenant, request, now)

    def _let_go(self, tenant: Tenant, request: Request, now: float) -> None:
        """Nobody needs the payload any more; what it did to workers is remembered for the next one like it."""
        if request.lone_deaths:
            tenant.poison.note(self._digest(request), request.lone_deaths, now + tenant.limits.poison_s)
        tenant.held_bytes -= request.payload_bytes
        request.payload = ()

    def _announce_tenant_if_empty(self, tenant: Tenant) -> None:
        if tenant.gate is Gate.CLOSED and not (tenant.requests or tenant.is_announced or tenant.awaits_resends):
            tenant.is_announced = True
            self._effects.append(AnnounceTenantEmpty(tenant.name))

    def _announce_worker_if_empty(self, holder: Holder) -> None:
        if holder.is_closed and not holder.leases and not holder.is_announced:
            holder.is_announced = True
            self._effects.append(AnnounceWorkerEmpty(holder.id))

    def _look_again(self, tenant: Tenant, at: float) -> None:
        self._sequence += 1
        heapq.heappush(self._instants, (at, self._sequence, tenant))

    def _reconsider(self, tenant: Tenant, now: float) -> None:
        """An instant set for a tenant has come: its clients had time to return, or its lane has waited long enough."""
        if self._tenants.get(tenant.name) is not tenant:
            return
        if now >= tenant.resends_until:
            tenant.awaits_resends = False
        self._turns.activate(tenant.name)
        self._announce_tenant_if_empty(tenant)

    def _forget_stale_instants(self) -> None:
        self._instants[:] = [
            entry for entry in self._instants if isinstance(entry[2], Tenant) or not entry[2].is_answered
        ]
        heapq.heapify(self._instants)
        self._stale_instants = 0


def _unavailable(tenant: Tenant) -> Refusal:
    return Refusal(ErrorCode.UNAVAILABLE, tenant.reason or "the tenant is not available", tenant.retry_after_s)
