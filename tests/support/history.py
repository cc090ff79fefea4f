"""What must be true of a dispatcher's effects, kept by an observer that knows nothing of its inside."""

from __future__ import annotations

from dataclasses import dataclass, field

from trtd.core.dispatch import (
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    Deliver,
    Dispatch,
    DispatchEffect,
    Refuse,
    Request,
)
from trtd.core.ids import LeaseId, TenantName, WorkerId


@dataclass
class History:
    """Follows leases and answers from outside, and raises on the first effect that breaks a promise.

    Attributes:
        leases: open leases as the effects opened and the events closed them.
        ended: requests with their one answer.
        must_deliver: requests whose open lease was just answered in time, in order.
        open_workers: lives that may be given work.
        closed_gates: tenants that take nothing new.
    """

    leases: dict[LeaseId, tuple[WorkerId, Request]] = field(default_factory=dict)
    ended: set[Request] = field(default_factory=set)
    must_deliver: list[Request] = field(default_factory=list)
    open_workers: set[WorkerId] = field(default_factory=set)
    closed_gates: set[TenantName] = field(default_factory=set)
    submitted: set[Request] = field(default_factory=set)

    def held_by(self, worker: WorkerId) -> list[tuple[LeaseId, Request]]:
        """A worker's open leases."""
        return [(lease, request) for lease, (holder, request) in self.leases.items() if holder == worker]

    def answered(self, worker: WorkerId, lease: LeaseId) -> None:
        """A worker sends an answer; note whether it has to be delivered."""
        holder, request = self.leases.get(lease, (None, None))
        if holder != worker or request is None:
            return
        del self.leases[lease]
        if request not in self.ended:
            self.must_deliver.append(request)

    def lost(self, worker: WorkerId) -> None:
        """A worker's leases ended without an answer."""
        self.open_workers.discard(worker)
        for lease, _ in self.held_by(worker):
            del self.leases[lease]

    def observe(self, effects: list[DispatchEffect], now: float, max_outstanding: int) -> None:
        """Check a turn's effects against all that happened before."""
        for effect in effects:
            if isinstance(effect, Dispatch):
                self._dispatched(effect, now, max_outstanding)
            elif isinstance(effect, Deliver):
                assert effect.request in self.must_deliver, "an answer was delivered that no open lease gave"
                self.must_deliver.remove(effect.request)
                self._end(effect.request)
            elif isinstance(effect, Refuse):
                self._end(effect.request)
            elif isinstance(effect, AnnounceWorkerEmpty):
                assert effect.worker not in self.open_workers, "an open worker was announced"
                assert not self.held_by(effect.worker), "a worker was announced that holds leases"
            elif isinstance(effect, AnnounceTenantEmpty):
                assert effect.tenant in self.closed_gates, "a tenant was announced whose gate is open"
        assert not self.must_deliver, "an answer in time was not delivered"

    def _end(self, request: Request) -> None:
        assert request in self.submitted, "a request was answered that nobody sent"
        assert request not in self.ended, "a request was answered twice"
        self.ended.add(request)

    def _dispatched(self, effect: Dispatch, now: float, max_outstanding: int) -> None:
        assert effect.worker in self.open_workers, "work for a worker that may not be given any"
        for lease, request in effect.requests:
            assert lease not in self.leases, "a lease was given twice"
            assert request not in self.ended, "an answered request was handed out"
            assert request.tenant == effect.worker.tenant, "a request went to another tenant's worker"
            assert request.deadline > now, "an expired request was handed out"
            assert request not in [held for _, held in self.leases.values()], "a request has two leases"
            assert request.payload, "a request was handed out without its payload"
            self.leases[lease] = (effect.worker, request)
        held = [request for _, request in self.held_by(effect.worker)]
        assert len(held) <= max_outstanding, "a worker holds more than it has room for"
        if effect.must_run_alone:
            assert all(request.is_suspect for request in held), "suspects share a worker with innocents"
