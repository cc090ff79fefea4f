"""How requests enter the accounts and how they leave them: accepted, answered, failed, refused, each exactly once.

The one writer of `TenantCounters`, of held bytes and of the effects that reach clients or announce emptiness. Who gets
which request is left to `trtd.core.assignment`, what happened and what follows from it to `trtd.core.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trtd.core.admission import Refusal, refuse_for_bounds
from trtd.core.agenda import Agenda
from trtd.core.ids import LeaseId, WorkerId
from trtd.core.inflight import LONE_DEATHS_TO_CONVICT, SUSPICION_S, Holder, InputKey
from trtd.core.requests import (
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    BlameClient,
    Deliver,
    DispatchEffect,
    Refuse,
    Request,
    ResultFields,
)
from trtd.core.tenancy import Gate, Tenant
from trtd.errors import ErrorCode


class Ledger:
    """The accounts of all tenants, and the effects that follow from them.

    Attributes:
        effects: what the shell has to perform, in order.
        agenda: deadlines of the accepted requests.
        unanswered: how many were accepted and have no answer yet, of all tenants.
    """

    def __init__(self, digest: Callable[[Request], bytes]) -> None:
        self._digest = digest
        self.effects: list[DispatchEffect] = []
        self.agenda = Agenda()
        self.unanswered = 0

    def enter(self, tenant: Tenant, request: Request, now: float) -> bool:
        """Accept a new request, which is then to be queued or leased, or refuse it; whether it was accepted."""
        limits = tenant.limits
        requests = tenant.requests
        held_bytes = tenant.held_bytes + request.payload_bytes
        if (
            len(requests) >= limits.max_requests
            or held_bytes > limits.max_bytes
            or request.deadline <= now
            or tenant.poison.entries
            or tenant.offenders.bars
            or not tenant.is_available
            or tenant.gate is CLOSED
        ):
            refusal = self._judge(tenant, request, now)
            if refusal is not None:
                self.refuse(tenant, request, refusal)
                return False
        if not requests:
            tenant.pace.become_busy(now)
        requests[request.id] = request
        tenant.counters.accepted += 1
        self.unanswered += 1
        tenant.held_bytes = held_bytes
        self.agenda.watch_deadline(request)
        return True

    def _judge(self, tenant: Tenant, request: Request, now: float) -> Refusal | None:
        """Why a new request cannot enter, None when it can. One like it that was suspected makes it a suspect, too."""
        # Who says that it sent the request before may say so of anything: it is believed only while clients of a former
        # router come back.
        if tenant.gate is CLOSED and not (request.is_resent and tenant.awaits_resends):
            return Refusal(ErrorCode.DRAINING, f"the tenant {tenant.name} takes no new requests")
        if not tenant.is_available:
            return unavailable(tenant)
        if (refusal := self.bar(tenant, request, now)) is not None:
            return refusal
        if tenant.poison.entries and (known := tenant.poison.recall(self._key_of(request), now)) is not None:
            if known.lone_deaths >= LONE_DEATHS_TO_CONVICT:
                return POISONOUS
            request.lone_deaths, request.deaths = known.lone_deaths, known.deaths
            request.is_suspect = True
        refusal = refuse_for_bounds(
            tenant.limits, len(tenant.requests), tenant.held_bytes, request.payload_bytes, tenant.pace, now
        )
        if refusal is None and request.deadline <= now:
            return Refusal(ErrorCode.DEADLINE_EXCEEDED, "the deadline had passed when the request arrived")
        return refusal

    def refuse(self, tenant: Tenant, request: Request, refusal: Refusal) -> None:
        """The request does not enter."""
        tenant.counters.refused += 1
        tenant.count_outcome(request.model, refusal.code)
        self.effects.append(Refuse(request, *refusal))

    def answer_all(
        self, tenant: Tenant, leases: dict[LeaseId, Request], results: Iterable[ResultFields], now: float
    ) -> int:
        """A worker gave up leases with results; how many of these were the answers of their requests.

        A suspect is cleared by its answer, unless the worker dropped it without a try because its time was up.
        """
        requests = tenant.requests
        observe = tenant.durations.observe
        append = self.effects.append
        stale = answered = released_bytes = counted = 0
        model = outcome = ""
        for lease, code, frames in results:
            request = leases.pop(lease, None)
            if request is None:
                stale += 1
                continue
            request.lease = None
            if request.is_suspect and code != ErrorCode.DEADLINE_EXCEEDED:
                request.is_suspect = False
                tenant.offenders.forgive(request.owner, request.deaths)
                if tenant.poison.entries:
                    tenant.poison.forgive(self._key_of(request))
            if request.is_answered:
                stale += 1
                self.release(tenant, request, now, is_ghost=True)
                continue
            answered += 1
            request.is_answered = True
            del requests[request.id]
            observe(now - request.received_at)
            of_this = "ok" if code is None else code
            if of_this != outcome or request.model != model:
                if counted:
                    tenant.count_outcome(model, outcome, counted)
                model, outcome, counted = request.model, of_this, 0
            counted += 1
            if request.is_suspect:
                self.release(tenant, request, now)
            else:
                released_bytes += request.payload_bytes
                request.payload = ()
                request.memory = None
            append(Deliver(request, frames))
        if counted:
            tenant.count_outcome(model, outcome, counted)
        tenant.durations.tidy()
        tenant.counters.answered += answered
        tenant.counters.stale += stale
        tenant.held_bytes -= released_bytes
        self.unanswered -= answered
        self.agenda.note_answered(answered)
        return answered

    def fail(self, tenant: Tenant, request: Request, refusal: Refusal, now: float) -> None:
        """Answer an accepted request, taken out of queue and lane, with an error. If it is leased, a ghost stays."""
        tenant.counters.failed += 1
        request.is_answered = True
        self.unanswered -= 1
        del tenant.requests[request.id]
        tenant.durations.observe(now - request.received_at)
        tenant.durations.tidy()
        tenant.count_outcome(request.model, refusal.code)
        self.agenda.note_answered()
        if request.lease is None:
            self.release(tenant, request, now)
        self.effects.append(Refuse(request, *refusal))
        self.announce_tenant_if_empty(tenant)

    def fail_waiting(self, tenant: Tenant, refusal: Refusal, now: float) -> None:
        """Fail all that waits for a worker."""
        for request in [*tenant.lane, *tenant.queue]:
            take_out(tenant, request)
            self.fail(tenant, request, refusal, now)

    def expire(self, tenant: Tenant, request: Request, now: float) -> None:
        """The request's deadline has passed."""
        tenant.counters.expired += 1
        is_waiting = request.lease is None
        if is_waiting:
            take_out(tenant, request)
        where = "no worker had taken it" if is_waiting else "a worker was at it"
        text = f"no answer within {request.deadline - request.received_at:.3f} s; {where}"
        self.fail(tenant, request, Refusal(ErrorCode.DEADLINE_EXCEEDED, text), now)

    def release(self, tenant: Tenant, request: Request, now: float, *, is_ghost: bool = False) -> None:
        """Neither client nor worker needs the payload any more.

        A suspect that no worker answered is remembered, so that a client's retry goes on where it ended.

        Args:
            tenant: whose.
            request: which.
            now: monotonic seconds.
            is_ghost: its client was answered before, and may have put other bytes into its shared memory since. Unless
                they were fingerprinted before a worker got them, what is there now is looked at more closely, and no
                death is held against it.
        """
        if request.is_suspect:
            is_unknown = is_ghost and request.memory is not None and not request.digest
            lone_deaths = 0 if is_unknown else request.lone_deaths
            is_convicted = lone_deaths >= LONE_DEATHS_TO_CONVICT
            seconds = tenant.limits.poison_s if is_convicted else min(SUSPICION_S, tenant.limits.poison_s)
            deaths = () if is_unknown else request.deaths
            tenant.poison.note(self._key_of(request), lone_deaths, deaths, now, seconds)
        tenant.held_bytes -= request.payload_bytes
        request.payload = ()
        request.memory = None

    def is_poisonous(self, tenant: Tenant, request: Request, now: float) -> bool:
        """Whether a waiting request is like one that was convicted after this one arrived."""
        if request.received_at > tenant.poison.convicted_at:
            return False
        known = tenant.poison.recall(self._key_of(request), now)
        return known is not None and known.lone_deaths >= LONE_DEATHS_TO_CONVICT

    def is_cleared(self, tenant: Tenant, request: Request, now: float) -> bool:
        """Whether a suspect ended no worker itself, and the input that it was suspected for has been answered since."""
        return not request.attempts and tenant.poison.recall(self._key_of(request), now) is None

    def bar(self, tenant: Tenant, request: Request, now: float) -> Refusal | None:
        """Why nothing is taken of a client that has ended too many workers, None when something is."""
        if not tenant.offenders.bars:
            return None
        barred_s = tenant.offenders.barred_s(request.owner, now)
        if not barred_s:
            return None
        text = f"inputs of {request.owner} keep ending workers; nothing is taken of it for {barred_s:.3g} s"
        return Refusal(ErrorCode.BARRED, text, barred_s)

    def blame(self, tenant: Tenant, request: Request, worker: WorkerId, now: float) -> None:
        """A worker died alone with a request, of something that an input can cause: count that against its client.

        Once the input is convicted, or its client is barred, the tenant does not pay for these deaths.
        """
        request.lone_deaths += 1
        is_convicted = request.lone_deaths == LONE_DEATHS_TO_CONVICT
        is_barred = tenant.offenders.note(request.owner, worker, now, tenant.limits.poison_s)
        if not (is_convicted or is_barred):
            return
        deaths = request.deaths
        barred_s = 0.0
        if is_barred:
            barred_s = tenant.offenders.barred_s(request.owner, now)
            deaths = tuple(dict.fromkeys((*deaths, *tenant.offenders.deaths_of(request.owner))))
        tenant.counters.convicted += is_convicted
        self.effects.append(BlameClient(tenant.name, request.owner, request.model, deaths, barred_s))

    def convict(self, tenant: Tenant, request: Request, now: float) -> None:
        """The input of a new request has ended routers: it does not enter, and is remembered as poisonous."""
        tenant.poison.note(self._key_of(request), LONE_DEATHS_TO_CONVICT, (), now, tenant.limits.poison_s)
        tenant.counters.convicted += 1
        self.refuse(tenant, request, ENDED_ROUTERS)

    def fix_digest(self, request: Request) -> None:
        """Take the fingerprint of what a worker is about to be given; see `Request.digest`."""
        if request.memory is not None or not request.digest:
            request.digest = self._digest(request)

    def announce_tenant_if_empty(self, tenant: Tenant) -> None:
        """Say once that a tenant with a closed gate owes no answer."""
        if tenant.gate is CLOSED and not (tenant.requests or tenant.is_announced or tenant.awaits_resends):
            tenant.is_announced = True
            self.effects.append(AnnounceTenantEmpty(tenant.name))

    def announce_worker_if_empty(self, holder: Holder) -> None:
        """Say once that a closed worker holds nothing."""
        if holder.is_closed and not (holder.leases or holder.is_announced):
            holder.is_announced = True
            self.effects.append(AnnounceWorkerEmpty(holder.id))

    def _key_of(self, request: Request) -> InputKey:
        if not request.digest:
            request.digest = self._digest(request)
        return request.owner, request.digest


CLOSED = Gate.CLOSED
POISONOUS = Refusal(ErrorCode.POISONOUS, "this input has ended workers and is refused for a while")

ENDED_ROUTERS = Refusal(ErrorCode.POISONOUS, "this request has ended routers; its input is refused for a while")


def unavailable(tenant: Tenant) -> Refusal:
    """The refusal of a tenant without workers, in the supervisor's words."""
    return Refusal(ErrorCode.UNAVAILABLE, tenant.reason or "the tenant is not available", tenant.retry_after_s)


def take_out(tenant: Tenant, request: Request) -> None:
    """Remove a waiting request from where it waits."""
    if request.is_suspect:
        tenant.lane.remove(request)
    else:
        tenant.queue.remove(request)
