"""A dispatcher with a clock, and workers that do as they are told: how the unit tests of the router's mind speak."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, TypeVar

from trtd.core.dispatch import (
    Deliver,
    Dispatch,
    DispatchEffect,
    Dispatcher,
    Refuse,
    Request,
    TenantLimits,
)
from trtd.core.faults import Fault, FaultKind
from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.errors import ErrorCode

TENANT = TenantName("acme")
FIRST_LEASE = 7 << 32
CRASHED = Fault(FaultKind.CRASHED, "SIGSEGV")
"""An input can do that."""
HUNG = Fault(FaultKind.PROGRESS_STALLED, "no progress for 30 s")
"""Likewise."""
REQUESTED = Fault(FaultKind.REQUESTED, "was asked to stop", sticky=False)
"""No input does that."""

E = TypeVar("E", bound=DispatchEffect)

_ids = count(1)


def make_request(**changes: Any) -> Request:
    """A request of 100 bytes for TENANT, received at 1000.0 and due 30 s later, with an id of its own."""
    received_at = changes.pop("received_at", 1000.0)
    values: dict[str, Any] = {
        "id": RequestId(next(_ids).to_bytes(16, "big")),
        "tenant": TENANT,
        "owner": 1001,
        "route": b"route",
        "payload": (b"header", b"tensor"),
        "payload_bytes": 100,
        "priority": 0,
        "received_at": received_at,
        "deadline": received_at + 30.0,
        "model": "mlp",
    }
    return Request(**(values | changes))


def make_worker(replica: int = 0, generation: int = 1, tenant: TenantName = TENANT) -> WorkerId:
    """A worker of TENANT in its first life."""
    return WorkerId(tenant, replica, generation)


def payload_digest(request: Request) -> bytes:
    """A fingerprint that is the payload itself."""
    return b"|".join(bytes(frame) for frame in request.payload)


class Desk:
    """A dispatcher in which TENANT is open and available, unless told otherwise; checked after every event."""

    def __init__(
        self, limits: TenantLimits | None = None, *, is_told: bool = True, resend_grace_s: float = 0.0
    ) -> None:
        self.now = 1000.0
        self.dispatcher = Dispatcher(payload_digest, FIRST_LEASE, resend_grace_s)
        self.effects: list[DispatchEffect] = []
        self.leases: dict[WorkerId, dict[Request, LeaseId]] = {}
        self.add_tenant(TENANT, limits, is_told=is_told)

    def add_tenant(self, tenant: TenantName, limits: TenantLimits | None = None, *, is_told: bool = True) -> None:
        """Configure a tenant, and open it."""
        self.dispatcher.configure_tenant(tenant, limits or TenantLimits(), self.now)
        if is_told:
            self.dispatcher.set_gate(tenant, True, self.now)
            self.dispatcher.set_availability(tenant, True, "", None, self.now)

    def admit(self, worker: WorkerId | None = None) -> WorkerId:
        """Admit a worker, the first one unless named."""
        worker = worker or make_worker()
        self.dispatcher.admit_worker(worker, self.now)
        self.turn()
        return worker

    def submit(self, *requests: Request) -> Request:
        """Submit requests, then let the dispatcher decide; the first one."""
        for request in requests:
            self.dispatcher.submit(request, self.now)
        self.turn()
        return requests[0]

    def submit_new(self, **changes: Any) -> Request:
        """Submit one new request, received now."""
        return self.submit(make_request(received_at=self.now, **changes))

    def turn(self) -> list[DispatchEffect]:
        """One turn of the router's loop; the effects of it."""
        self.dispatcher.advance(self.now)
        self.dispatcher.check()
        effects = self.dispatcher.take_effects()
        for effect in effects:
            if isinstance(effect, Dispatch):
                held = self.leases.setdefault(effect.worker, {})
                held.update({request: lease for lease, request in effect.requests})
        self.effects += effects
        return effects

    def wait(self, seconds: float) -> list[DispatchEffect]:
        """Let time pass; the effects of it."""
        self.now += seconds
        return self.turn()

    def held_by(self, worker: WorkerId) -> list[Request]:
        """What a worker has been given and has not answered, in order."""
        return list(self.leases.get(worker, {}))

    def answer(self, worker: WorkerId, *requests: Request, code: ErrorCode | None = None) -> list[DispatchEffect]:
        """The worker answers these requests, or all that it holds."""
        held = self.leases.get(worker, {})
        results = [(held.pop(request), code, (b"answer",)) for request in requests or list(held)]
        self.dispatcher.complete(worker, results, self.now)
        return self.turn()

    def die(self, worker: WorkerId, fault: Fault = CRASHED) -> WorkerId:
        """The worker dies; the id of its successor, which is not admitted yet."""
        self.leases.pop(worker, None)
        self.dispatcher.revoke_worker(worker, fault, self.now)
        self.turn()
        return worker._replace(generation=worker.generation + 1)

    def take(self, kind: type[E]) -> list[E]:
        """All effects of one kind since the last call for that kind, in order."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def delivered(self) -> list[Request]:
        """Requests whose worker's answer went out since the last call."""
        return [effect.request for effect in self.take(Deliver)]

    def refused(self) -> dict[Request, ErrorCode]:
        """Requests that were answered with an error of the router's own since the last call."""
        return {effect.request: effect.code for effect in self.take(Refuse)}


def groups(dispatches: Sequence[Dispatch]) -> list[list[Request]]:
    """The requests of each message to a worker."""
    return [[request for _, request in dispatch.requests] for dispatch in dispatches]
