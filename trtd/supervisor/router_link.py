"""The one place that talks to the router: the fleet's effects as messages, and questions that wait for their answer.

While no router is ready, messages are dropped: the fleet tells a new router everything when it becomes ready.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from trtd.core.fleet import (
    ROUTER,
    AdmitWorker,
    CloseWorker,
    ConfigureTenant,
    ForgetTenant,
    RevokeWorker,
    SetAvailability,
    SetGate,
    SetWorkerAside,
)
from trtd.supervisor.facts import Facts
from trtd.supervisor.processes import Processes
from trtd.wire.control import (
    AskUnfinished,
    AvailabilitySet,
    GateSet,
    SupervisorMessage,
    TenantConfigured,
    TenantForgotten,
    Unfinished,
    WorkerAdmitted,
    WorkerClosed,
    WorkerRevoked,
    WorkerSetAside,
)
from trtd.wire.settings import TenantEndpoint

RouterEffect = (
    ConfigureTenant
    | ForgetTenant
    | SetGate
    | SetAvailability
    | AdmitWorker
    | CloseWorker
    | RevokeWorker
    | SetWorkerAside
)


def as_message(effect: RouterEffect, endpoints: Mapping[str, TenantEndpoint]) -> SupervisorMessage:
    """The message that performs an effect."""
    match effect:
        case ConfigureTenant(tenant):
            return TenantConfigured(endpoints[tenant])
        case ForgetTenant(tenant):
            return TenantForgotten(tenant)
        case SetGate(tenant, is_open, epoch):
            return GateSet(tenant, is_open, epoch)
        case SetAvailability(tenant, is_available, _, retry_after_s, told):
            return AvailabilitySet(tenant, is_available, told, retry_after_s)
        case AdmitWorker(worker, pid):
            return WorkerAdmitted(*worker, pid)
        case CloseWorker(worker):
            return WorkerClosed(*worker)
        case SetWorkerAside(worker):
            return WorkerSetAside(*worker)
        case RevokeWorker(worker, fault):
            return WorkerRevoked(*worker, fault)


class RouterLink:
    """What is told to the router that is ready now, if there is one.

    Args:
        processes: carries the messages.
        facts: notes what the router was told, and forgets what died with it.
        on_deaf: called with the generation of a router that has not read for so long that messages are lost.
    """

    def __init__(self, processes: Processes, facts: Facts, on_deaf: Callable[[int], None]) -> None:
        self._processes = processes
        self._facts = facts
        self._on_deaf = on_deaf
        self._generation: int | None = None
        self._questions: dict[str, list[asyncio.Future[Unfinished | None]]] = defaultdict(list)

    def opened(self, generation: int) -> None:
        """A router is ready."""
        self._generation = generation

    def lost(self) -> None:
        """The router is gone: so is what it held, and whoever waits for its word gets none."""
        self._generation = None
        for seen in self._facts.tenants.values():
            seen.totals.router_lost()
        for tenant in list(self._questions):
            self._answer(tenant, None)

    def tell(self, message: SupervisorMessage) -> bool:
        """Send a message to the router; False when there is none to read it."""
        if self._generation is None:
            return False
        if self._processes.tell(ROUTER, self._generation, message):
            return True
        if (ROUTER, self._generation) in self._processes.live:
            self._on_deaf(self._generation)
        return False

    def perform(self, effect: RouterEffect, endpoints: Mapping[str, TenantEndpoint], now: float) -> None:
        """Tell the router what the fleet wants it to know, and note it for the status."""
        match effect:
            case SetGate(tenant, is_open):
                self._facts.tenant(tenant, now).is_open = is_open
            case SetAvailability(tenant, is_available, reason):
                seen = self._facts.tenant(tenant, now)
                seen.is_available, seen.reason = is_available, reason
        message = as_message(effect, endpoints)
        if isinstance(message, WorkerAdmitted) and isinstance(effect, AdmitWorker):
            process = self._processes.live.get((str(effect.worker.key), effect.worker.generation))
            if process is not None:
                message = replace(message, max_answer_bytes=process.max_answer_bytes)
        self.tell(message)

    async def ask_unfinished(self, tenant: str, timeout_s: float) -> Unfinished | None:
        """Which requests of the tenant have no answer yet; None when no router answers in time."""
        answer: asyncio.Future[Unfinished | None] = asyncio.get_running_loop().create_future()
        self._questions[tenant].append(answer)
        if not self.tell(AskUnfinished(tenant)):
            self._answer(tenant, None)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None

    def heard_unfinished(self, message: Unfinished) -> None:
        """The router answered."""
        self._answer(message.tenant, message)

    def _answer(self, tenant: str, answer: Unfinished | None) -> None:
        for question in self._questions.pop(tenant, ()):
            if not question.done():
                question.set_result(answer)
