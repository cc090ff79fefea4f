"""What must never happen (checked after every event that can change it), and what must have happened in the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.simulation.clients import GRACE_S, Call
from tests.simulation.processes import HANG, POISON, answer_to
from trtd.core.dispatch import Dispatch, Request
from trtd.core.fleet import ChildEvent, Fleet, Phase, Replacement, Tenant
from trtd.core.ids import TenantName
from trtd.core.lifecycle import DeathExcused, State
from trtd.errors import ErrorCode

TYPED = set(ErrorCode)
EPSILON_S = 1e-6
PATIENT_S = 20.0
"""So much time outlasts all chaos and every restart: the request is answered by a worker, or refused with a reason."""


class PromiseBroken(AssertionError):
    """A promise of the design does not hold in this world."""


def insist(holds: bool, text: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise PromiseBroken(text)


class Promises:
    """Watches one simulated world."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self.calls: list[Call] = []
        self._poisoners: set[str] = set()
        self._excused: set[tuple[str, int]] = set()
        self._phases: dict[TenantName, Phase] = {}
        self._replicas: dict[TenantName, int] = {}
        self._ready: dict[TenantName, set[tuple[str, int]]] = {}
        self._bad_spawns: Counter[TenantName] = Counter()

    # What clients see

    def called(self, call: Call) -> None:
        """A client made a request."""
        self.calls.append(call)
        if call.value in (POISON, HANG):
            self._poisoners.add(call.owner)

    def concluded(self, call: Call, body: Any) -> None:
        """A client has its one outcome: right, or a typed error, and not long after the deadline."""
        now = self.sim.clock.now
        insist(now <= call.deadline + GRACE_S + EPSILON_S, f"{call.id.hex()} concluded after its grace")
        if call.outcome == "ok":
            tenant, request_id, answer, worker = body
            insist(tenant == call.tenant == worker.tenant, f"{call.tenant} got an answer of {tenant} by {worker}")
            insist(request_id == call.id, "the answer belongs to another request")
            insist(answer == answer_to(call.value), "the answer is wrong")
            insist(call.value not in (POISON, HANG), "a request that ends workers cannot be answered")
        else:
            insist(call.outcome == "gave up" or call.outcome in TYPED, f"{call.outcome!r} is no typed error")
        if not self.sim.is_cruel:
            is_culprit = call.value in (POISON, HANG)
            insist(call.outcome is not ErrorCode.POISONOUS or is_culprit, f"{call.id.hex()} is innocent, and convicted")
            has_sent_poison = call.owner in self._poisoners
            insist(call.outcome is not ErrorCode.BARRED or has_sent_poison, f"{call.owner} is barred for nothing")
        is_patient = call.deadline - call.sent_at >= PATIENT_S and call.tenant not in self.sim.poisoned_tenants
        if is_patient and not self.sim.is_cruel:
            timed_out = call.outcome in (ErrorCode.DEADLINE_EXCEEDED, "gave up")
            insist(not timed_out, f"{call.id.hex()} of {call.tenant} waited {PATIENT_S} s and got nothing")
        if call.value in (POISON, HANG) or call.tenant in self.sim.harmed:
            return
        # Nobody harmed this tenant: its clients see full queues and passed deadlines at most.
        harmless = {"ok", ErrorCode.OVERLOADED, ErrorCode.DEADLINE_EXCEEDED}
        if self.sim.router_was_harmed or self.sim.router_stood_still:
            harmless |= {"gave up"}
        insist(call.outcome in harmless, f"{call.tenant} was left alone, and still got {call.outcome}")

    # What the router does

    def dispatched(self, router: Any, effect: Dispatch) -> None:
        """Work goes only to workers that are not revoked, and never to another tenant's."""
        insist(effect.worker not in router.revoked, f"{effect.worker} was revoked and is given work")
        for _, request in effect.requests:
            insist(request.tenant == effect.worker.tenant, "a request went to another tenant's worker")
            insist(request.id not in router.answered, "an answered request was dispatched")
            insist(request.deadline >= self.sim.clock.now - EPSILON_S, "an expired request was dispatched")

    def delivered(self, router: Any, request: Request, frames: Any) -> None:
        """A worker's answer counts only while the worker does."""
        worker = frames.worker
        insist(worker not in router.revoked, f"an answer of {worker} counted after it was revoked")
        self._answered_once(router, request)

    def refused(self, router: Any, request: Request, code: ErrorCode) -> None:
        """An error is an answer too: one per request and life of the router, and not after the deadline."""
        if code is ErrorCode.MALFORMED:
            return
        self._answered_once(router, request)

    def _answered_once(self, router: Any, request: Request) -> None:
        insist(request.id not in router.answered, f"{request.id.hex()} was answered twice")
        router.answered.add(request.id)
        insist(
            router.was_frozen or self.sim.clock.now <= max(request.deadline, request.received_at) + EPSILON_S,
            f"{request.id.hex()} was answered {self.sim.clock.now - request.deadline:.3f} s after its deadline",
        )

    def announced_empty(self, router: Any, tenant: TenantName) -> None:
        """Empty means that nothing accepted waits for its answer."""
        left = router.dispatcher.unfinished(tenant)
        insist(not left, f"{tenant} was called empty with {len(left)} unanswered requests")

    def router_turned(self, router: Any) -> None:
        """The dispatcher's own invariants hold."""
        router.dispatcher.check()

    def blamed(self, owner: Any) -> None:
        """Only a client that sent poison is blamed for deaths of workers."""
        insist(self.sim.is_cruel or owner in self._poisoners, f"{owner} is blamed, and sent no poison")

    # What the supervisor does

    def told(self, event: Any) -> None:
        """What the supervisor is told about deaths that clients caused."""
        if isinstance(event, ChildEvent) and isinstance(event.event, DeathExcused):
            self._excused.add((event.name, event.event.life))

    def fleet_moved(self, fleet: Fleet) -> None:
        """The fleet's own invariants hold, and a tenant is DRAINED only when its workers are gone."""
        fleet.check()
        for name, life in self._excused:
            child = fleet.children.get(name)
            is_charged = child is not None and any(death.generation == life for death in child.deaths)
            insist(not is_charged, f"{name} is charged for the end of life {life}, which a client caused")
        for name, tenant in fleet.tenants.items():
            before = self._phases.get(name)
            self._nobody_left_early(fleet, tenant)
            self._phases[name] = tenant.phase
            if tenant.phase is Phase.DRAINED and before is not Phase.DRAINED:
                for child_name, child in fleet.children.items():
                    if child_name.startswith(f"{name}/"):
                        insist(child.pid is None, f"{name} is drained and {child_name} lives")

    def _nobody_left_early(self, fleet: Fleet, tenant: Tenant) -> None:
        """A serving worker of a serving tenant is closed for a ready successor only, unless fewer are wanted."""
        name = tenant.spec.name
        before = self._ready.get(name, set())
        lives = {(worker, fleet.children[worker].generation) for worker in tenant.workers.values()}
        states = {life: fleet.children[life[0]].state for life in lives}
        self._ready[name] = {life for life in lives if states[life] is State.READY}
        was_serving = self._phases.get(name) is Phase.SERVING is tenant.phase
        are_fewer_wanted = tenant.spec.replicas < self._replicas.get(name, 0)
        self._replicas[name] = tenant.spec.replicas
        if not was_serving or are_fewer_wanted or tenant.spec.replacement is Replacement.STOP_FIRST:
            return
        closed = {life for life in before if states.get(life) is State.DRAINING}
        others = self._ready[name] - before
        insist(len(closed) <= len(others), f"{closed} of {name} were closed, and {others} became ready for them")

    def spawned(self, worker: Any) -> None:
        """A version that cannot start is tried once for each wish of an operator, not for ever."""
        tenant = worker.id.tenant
        if not worker.digest.startswith("bad") or tenant in self.sim.harmed:
            return
        self._bad_spawns[tenant] += 1
        most = self.sim.wishes[tenant] * self.sim.tenants[tenant].spec.replicas
        insist(self._bad_spawns[tenant] <= most, f"{tenant} tried what cannot start {self._bad_spawns[tenant]} times")

    # When chaos is over

    def at_the_end(self) -> None:
        """Every request has its one outcome, every tenant serves, and whoever was left alone was not touched."""
        for call in self.calls:
            insist(call.outcome is not None, f"{call.id.hex()} of {call.tenant} never got an answer")
        fleet = self.sim.supervisor.fleet
        for name, child in fleet.children.items():
            tenant = TenantName(name.rpartition("/")[0])
            if tenant in self.sim.tenants:
                ends = {State.READY}
                if fleet.tenants[tenant].phase is Phase.DRAINED:
                    ends = {State.STOPPED}
                elif self.sim.models_may_be_bad or tenant in self.sim.poisoned_tenants:
                    ends |= {State.QUARANTINED, State.BACKOFF, State.STARTING, State.WARMING}
                insist(child.state in ends, f"{name} ended {child.state}: {child.fault}")
                if tenant not in self.sim.harmed | self.sim.replaced:
                    insist(child.generation == 1, f"{name} was left alone and is at generation {child.generation}")
        for name, tenant in fleet.tenants.items():
            is_behind = tenant.phase is Phase.SERVING and bool(tenant.outdated)
            insist(not is_behind or self.sim.models_may_be_bad, f"{name} serves an old version in the end")
        router = self.sim.router
        insist(router is not None, "there is no router in the end")
        insist(router.generation == 1 or self.sim.router_was_harmed, "the router was left alone and was replaced")
        for tenant in self.sim.tenants:
            insist(not router.dispatcher.unfinished(tenant), f"the router still holds requests of {tenant}")
