"""Clients in a closed loop: send, wait, check, send the next; resend with the same id after each reconnection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.clock import Clock, Link
from tests.simulation.processes import HANG, POISON
from trtd.core.dispatch import Request
from trtd.core.ids import RequestId, TenantName
from trtd.errors import ErrorCode

GRACE_S = 1.0
"""How long after the deadline a client waits for the daemon's word before it gives up by itself."""


@dataclass(eq=False)
class Call:
    """One request as its client sees it.

    Attributes:
        outcome: None while it waits; then `"ok"`, an `ErrorCode`, or `"gave up"`.
    """

    id: RequestId
    tenant: TenantName
    owner: str
    value: int
    priority: int
    sent_at: float
    deadline: float
    outcome: Any = None
    was_sent: bool = False
    history: list[str] = field(default_factory=list)


class SimClient:
    """One client of one tenant."""

    def __init__(self, clock: Clock, sim: Any, tenant: TenantName, owner: str, calls: int) -> None:
        self.clock = clock
        self.sim = sim
        self.tenant = tenant
        self.owner = owner
        self.remaining = calls
        self.pipeline = clock.random.choice((1, 1, 2, 4))
        self.pending: dict[RequestId, Call] = {}
        self.router: Any = None
        self.to_router: Link | None = None
        self.from_router: Link | None = None
        for _ in range(self.pipeline):
            clock.after(clock.random.uniform(0.0, 0.5), self._call)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be sent or awaited."""
        return self.remaining <= 0 and not self.pending

    def connect(self, router: Any) -> None:
        """A new connection: everything unanswered is sent again."""
        if self.sim.router is not router or self.router is router or self.tenant not in router.endpoints:
            return
        self.router = router
        self.to_router = Link(self.clock, lambda request: router.do(router.client_said, request))
        self.from_router = Link(self.clock, self._receive)
        for call in list(self.pending.values()):
            self._send(call)

    def disconnected(self, router: Any) -> None:
        """The router died; answers that it had sent may still arrive, or not."""
        if self.router is router:
            self.router = None
            if self.clock.random.random() < 0.5 and self.from_router is not None:
                self.from_router.cut()
            if self.to_router is not None:
                self.to_router.cut()

    def _call(self) -> None:
        if self.remaining <= 0:
            return
        self.remaining -= 1
        now = self.clock.now
        draw = self.clock.random.random()
        value = self.clock.random.randrange(600)
        if draw < self.sim.plan.poison and self.tenant in self.sim.poisoned_tenants:
            value = POISON if self.clock.random.random() < 0.7 else HANG
        timeout_s = self.clock.random.choice((0.05, 0.5, 5.0, 5.0, 20.0, 20.0))
        request_id = RequestId(next(self.sim.ids).to_bytes(16, "big"))
        call = Call(
            request_id, self.tenant, self.owner, value, self.clock.random.choice((0, 0, 0, 1, -1)), now, now + timeout_s
        )
        self.pending[call.id] = call
        self.sim.promises.called(call)
        self.clock.at(call.deadline + GRACE_S, self._give_up, call)
        self._send(call)

    def _send(self, call: Call) -> None:
        if self.to_router is None or self.router is None:
            return
        now = self.clock.now
        request = Request(
            id=call.id,
            tenant=call.tenant,
            model="m",
            owner=self.owner,
            route=self.from_router,
            payload=(call.tenant, call.id, call.value),
            payload_bytes=100,
            priority=call.priority,
            received_at=now,
            deadline=call.deadline,
            is_resent=call.was_sent,
        )
        call.was_sent = True
        self.to_router.send(request)

    def _receive(self, answer: tuple[RequestId, ErrorCode | None, Any]) -> None:
        request_id, code, body = answer
        call = self.pending.pop(request_id, None)
        if call is None:
            return
        call.outcome = code if code is not None else "ok"
        self.sim.promises.concluded(call, body)
        self._next()

    def _give_up(self, call: Call) -> None:
        if self.pending.pop(call.id, None) is not None:
            call.outcome = "gave up"
            self.sim.promises.concluded(call, None)
            self._next()

    def _next(self) -> None:
        self.clock.after(self.clock.random.expovariate(1 / 0.02), self._call)
