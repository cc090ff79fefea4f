"""Which worker gets which request, and when: tenants in fair order, workers by room, suspects apart.

Normal work goes to the worker with the fewest leases. Suspects go, group by group, to one worker that holds nothing
else and gets nothing else until the lane is empty; the tenant's other workers go on. The lane waits a while for the
successor of a worker that died rather than take a healthy replica: so a poisonous request ends one replica again and
again, and not all.
"""

from __future__ import annotations

from collections import defaultdict

from trtd.core.ids import LeaseId, TenantName
from trtd.core.inflight import SUSPECT_PATIENCE_S, Holder, outstanding, split
from trtd.core.ledger import POISONOUS, Ledger
from trtd.core.requests import MAX_DISPATCHED, Dispatch, Request
from trtd.core.scheduling import DeficitRoundRobin
from trtd.core.tenancy import Tenant

REQUEST_COST_BYTES = 32 * 1024
"""What handling one request costs besides its bytes, as bytes: a small one takes as long as copying about so many."""

TURN_BYTES = 8 * REQUEST_COST_BYTES
"""What one turn allows a tenant of weight 1."""


class Assigner:
    """Hands waiting requests to workers.

    Args:
        ledger: fails those that turn out to be poisonous, and takes the `Dispatch` effects.
        first_lease: the first lease's number; others follow by one.

    Attributes:
        loads: what was leased and has not become an effect yet, by worker.
        turns: order of the tenants. One that may have got something to hand out, or somebody to hand it to, is
        activated.
    """

    def __init__(self, ledger: Ledger, first_lease: int) -> None:
        self._ledger = ledger
        self._next_lease = LeaseId(first_lease)
        self.loads: defaultdict[Holder, list[tuple[LeaseId, Request]]] = defaultdict(list)
        self.turns: DeficitRoundRobin[TenantName] = DeficitRoundRobin(TURN_BYTES)

    def lease_at_once(self, tenant: Tenant, request: Request, now: float) -> bool:
        """Lease a request that has just come, past the queue, if nothing else waits; False where it has to queue.

        For the case that most requests meet: no tenant is waiting for its turn, this one has no suspects, and a worker
        has room. It asks and does what `assign` would.
        """
        if tenant.queue.levels or tenant.lane.groups or tenant.lane_holder is not None:
            return False
        limits = tenant.limits
        room = limits.max_outstanding
        slots = limits.slots
        chosen: Holder | None = None
        for holder in tenant.holders.values():
            leases = len(holder.leases)
            if (
                leases < room
                and holder.is_admitted
                and not holder.is_closed
                and (holder.unheard <= slots or holder.gathers_until(slots) <= now)
            ):
                room, chosen = leases, holder
        if chosen is None:
            return False
        self._lease(tenant, chosen, request, now)
        return True

    def assign(self, tenants: dict[TenantName, Tenant], now: float) -> None:
        """Hand out all that can be, with one message per worker as far as it fits."""
        while self.turns.ring and (name := self.turns.next()) is not None:
            self._serve(tenants[name], now)
        for holder, load in self.loads.items():
            tenant = tenants[holder.id.tenant]
            tenant.queue_times.tidy()
            is_suspect = load[0][1].is_suspect
            while load:
                part, load = load[:MAX_DISPATCHED], load[MAX_DISPATCHED:]
                holder.note_sent(now)
                is_enough = holder.unheard > tenant.limits.slots
                self._ledger.effects.append(Dispatch(holder.id, part, is_suspect, is_enough))
        self.loads.clear()

    def suspect(self, tenant: Tenant, requests: list[Request], replica: int, now: float) -> None:
        """A worker died while it held these: they wait in groups, smaller than the one they were, for a lone worker."""
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
        self._ledger.agenda.look_again(tenant, tenant.lane_patience_until)
        self.turns.activate(tenant.name)

    def give_back(self, tenant: Tenant, requests: list[Request]) -> None:
        """A worker is gone through no fault of these: they wait again, before all others, in order."""
        if requests and requests[0].is_suspect:
            tenant.lane.push_front([requests])
        else:
            for request in reversed(requests):
                tenant.queue.push_front(request)
        self.turns.activate(tenant.name)

    def _serve(self, tenant: Tenant, now: float) -> None:
        """One tenant's turn: hand out until it is used up, or nothing can be handed out."""
        allowance = self.turns.allowance(tenant.name)
        spent = 0
        if tenant.lane or tenant.lane_holder is not None:
            spent = self._serve_lane(tenant, now)
        queue = tenant.queue
        candidates = self._ready(tenant, now) if queue else ()
        room = tenant.limits.max_outstanding
        while queue and candidates and spent < allowance:
            holder = candidates[0] if len(candidates) == 1 else min(candidates, key=outstanding)
            if len(holder.leases) >= room:
                break
            request = queue.pop()
            if request.received_at <= tenant.poison.convicted_at and self._ledger.is_poisonous(tenant, request, now):
                self._ledger.fail(tenant, request, POISONOUS, now)
            elif (refusal := self._ledger.bar(tenant, request, now)) is not None:
                self._ledger.fail(tenant, request, refusal, now)
            else:
                spent += self._lease(tenant, holder, request, now)
        if spent:
            self.turns.charge(tenant.name, spent)
        if spent < allowance:
            self.turns.deactivate(tenant.name)
            if queue:
                self._await_gathered(tenant)

    @staticmethod
    def _ready(tenant: Tenant, now: float) -> list[Holder]:
        """The workers to which requests are handed now."""
        slots = tenant.limits.slots
        return [holder for holder in tenant.candidates() if holder.gathers_until(slots) <= now]

    def _await_gathered(self, tenant: Tenant) -> None:
        """Come back to what waits when a worker that has room need not gather any more; answers make room in others."""
        limits = tenant.limits
        gathering = [holder for holder in tenant.candidates() if len(holder.leases) < limits.max_outstanding]
        if not gathering:
            return
        until = min(holder.gathers_until(limits.slots) for holder in gathering)
        if until != tenant.gathers_until:
            tenant.gathers_until = until
            self._ledger.agenda.look_again(tenant, until)

    def _serve_lane(self, tenant: Tenant, now: float) -> int:
        """Give the next group of suspects to a worker that holds nothing else; what it cost."""
        holder = tenant.lane_holder
        if holder is not None and any(request.is_suspect for request in holder.leases.values()):
            return 0
        if holder is None or holder.is_closed or not tenant.lane:
            holder = tenant.lane_holder = self._choose_for_lane(tenant, now)
        if holder is None or holder.leases:
            return 0
        spent = 0
        while tenant.lane and not spent:
            for request in tenant.lane.pop():
                if self._ledger.is_poisonous(tenant, request, now):
                    self._ledger.fail(tenant, request, POISONOUS, now)
                elif (refusal := self._ledger.bar(tenant, request, now)) is not None:
                    self._ledger.fail(tenant, request, refusal, now)
                elif self._ledger.is_cleared(tenant, request, now):
                    request.is_suspect = False
                    tenant.queue.push(request)
                else:
                    self._ledger.fix_digest(request)
                    spent += self._lease(tenant, holder, request, now)
        if not spent:
            tenant.lane_holder = None
        return spent

    def _choose_for_lane(self, tenant: Tenant, now: float) -> Holder | None:
        """A successor of a worker that died with suspects; any worker once there is none to wait for."""
        tenant.lane_holder = None
        if not tenant.lane:
            return None
        candidates = tenant.candidates()
        successors = [holder for holder in candidates if holder.id.replica in tenant.lane_replicas]
        if successors:
            candidates = successors
        elif tenant.lane_replicas and now < tenant.lane_patience_until:
            return None
        return min(candidates, key=outstanding, default=None)

    def _lease(self, tenant: Tenant, holder: Holder, request: Request, now: float) -> int:
        lease = self._next_lease
        self._next_lease = LeaseId(lease + 1)
        attempts = request.attempts
        if attempts:
            tenant.counters.replayed += 1
        elif request.leased_at == 0.0:
            tenant.queue_times.observe(now - request.received_at)
        request.lease = lease
        request.leased_at = now
        request.attempts = attempts + 1
        holder.leases[lease] = request
        self.loads[holder].append((lease, request))
        return REQUEST_COST_BYTES + request.payload_bytes
