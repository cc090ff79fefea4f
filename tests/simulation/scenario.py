"""One seed, one world: how many tenants of which kind, which chaos at which moments, and how it ends."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.clients import SimClient
from tests.simulation.clock import Clock
from tests.simulation.hosts import SimRouter, SimSupervisor
from tests.simulation.processes import SIGKILL, SimWorker
from tests.simulation.promises import Promises
from trtd.core import fleet
from trtd.core.dispatch import TenantLimits
from trtd.core.faults import ExitStatus
from trtd.core.fleet import ROUTER, Phase, Replacement, TenantSpec
from trtd.core.ids import TenantName
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy

CHAOS_S = 3.0
CONVERGENCE_S = 60.0
LAST_FAULTS_S = 0.2
LAST_MESSAGES_S = 0.1


@dataclass(frozen=True)
class Plan:
    """What this seed does to its world. Probabilities are per occasion."""

    timeouts: Timeouts
    router_timeouts: Timeouts
    restarts: RestartPolicy
    spawn_failure: float
    start_failure: float
    permanent_failure: float
    poison: float
    delay_s: float
    chaos: tuple[str, ...]
    max_starting: int


@dataclass(frozen=True)
class SimTenant:
    """One tenant's configuration in the simulation."""

    spec: TenantSpec
    limits: TenantLimits
    slots: int
    max_batch: int
    max_delay_s: float


CHAOS = (
    "kill",
    "freeze",
    "sticky",
    "ill_device",
    "kill_router",
    "freeze_router",
    "reload",
    "bad_reload",
    "drain",
    "resume",
    "restart",
    "drain_all",
    "stop",
    "starve",
    "stop_router",
    "pause_supervisor",
    "pause_all",
)
BAD = "bad"
"""How a worker_digest begins whose workers cannot use their model."""


def make_plan(draw: random.Random) -> Plan:
    """The world's laws: mostly kind, sometimes cruel."""
    timeouts = Timeouts(
        hello_s=1.0, warmup_s=1.5, beat_s=0.7, idle_beat_s=1.0, progress_s=1.0, drain_s=1.5, stop_s=0.5, reap_s=0.8
    )
    restarts = RestartPolicy(
        base_s=0.05,
        cap_s=1.0,
        healthy_after_s=draw.choice((0.5, 5.0)),
        budget=draw.choice((3, 6, 50)),
        window_s=draw.choice((1.0, 5.0)),
        probe_after_s=draw.choice((0.5, 2.0)),
    )
    is_cruel = draw.random() < 0.2
    return Plan(
        timeouts=timeouts,
        router_timeouts=timeouts,
        restarts=restarts,
        spawn_failure=0.1 if is_cruel else 0.0,
        start_failure=0.2 if is_cruel else 0.0,
        permanent_failure=0.05 if draw.random() < 0.1 else 0.0,
        poison=0.05 if draw.random() < 0.3 else 0.0,
        delay_s=draw.choice((0.0005, 0.002, 0.01)),
        chaos=tuple(draw.choice(CHAOS) for _ in range(draw.choice((0, 1, 2, 4, 8, 12)))),
        max_starting=draw.choice((0, 1, 2, 4)),
    )


def make_tenant(draw: random.Random, name: str, plan: Plan) -> SimTenant:
    """A tenant with small bounds, so that they are met."""
    replacement = draw.choice((Replacement.SUCCESSOR_FIRST, Replacement.SUCCESSOR_FIRST, Replacement.STOP_FIRST))
    replicas = draw.choice((1, 1, 2, 3))
    return SimTenant(
        spec=TenantSpec(TenantName(name), replicas, plan.timeouts, plan.restarts, "w0", "r0", replacement),
        limits=TenantLimits(
            weight=draw.choice((1, 2, 5)),
            max_requests=draw.choice((2, 8, 64)),
            max_bytes=draw.choice((300, 1000, 1_000_000)),
            max_attempts=draw.choice((2, 3, 5, 8)),
            max_outstanding=draw.choice((1, 2, 4, 16)),
            poison_s=draw.choice((1.0, 10.0)),
        ),
        slots=draw.choice((1, 2)),
        max_batch=draw.choice((1, 4, 8)),
        max_delay_s=draw.choice((0.0, 0.005)),
    )


class Simulation:
    """One world from its first spawn until every client has its answers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock = Clock(seed)
        draw = self.clock.random
        self.plan = make_plan(draw)
        self.clock.mean_delay_s = self.plan.delay_s
        self.is_cruel = bool(self.plan.spawn_failure or self.plan.start_failure or self.plan.permanent_failure)
        names = ("a", "b", "c")[: draw.choice((2, 3))]
        self.tenants: dict[TenantName, SimTenant] = {
            TenantName(name): make_tenant(draw, name, self.plan) for name in names
        }
        self.ids = itertools.count(1)
        self.pids = itertools.count(100)
        self.absent: set[TenantName] = set()
        self.harmed: set[TenantName] = set()
        self.replaced: set[TenantName] = set()
        self.wishes: Counter[TenantName] = Counter()
        self.ill_until: dict[TenantName, float] = {}
        self.poisoned_tenants: set[TenantName] = set()
        self.router_was_harmed = False
        self.router_stood_still = False
        if self.plan.poison:
            self.poisoned_tenants = {TenantName(draw.choice(names))}
            self.harmed |= self.poisoned_tenants
        if self.is_cruel:
            self.harmed |= set(self.tenants)
        self.models_may_be_bad = self.plan.permanent_failure > 0.0
        self.promises = Promises(self)
        self.router: SimRouter | None = None
        self.supervisor = SimSupervisor(self.clock, self)
        self.clients = [
            SimClient(self.clock, self, tenant, f"{tenant}{index}", draw.choice((5, 15, 30)))
            for tenant in self.tenants
            for index in range(draw.choice((1, 2, 3)))
        ]

    def run(self) -> None:
        """Start, disturb, let it settle, check.

        Raises:
            tests.simulation.promises.PromiseBroken: a promise does not hold; the same seed breaks it again.
        """
        clock = self.clock
        self._apply_config()
        for what in self.plan.chaos:
            clock.after(clock.random.uniform(0.0, CHAOS_S), getattr(self, f"_{what}"))
        clock.run_until(clock.now + CHAOS_S)
        self._settle()
        clock.run_until(clock.now + LAST_FAULTS_S)
        end = clock.now + CONVERGENCE_S
        clock.run_until(end, lambda: all(client.is_done for client in self.clients) and self._is_calm())
        clock.run_until(clock.now + LAST_MESSAGES_S)
        self.promises.at_the_end()

    def workers(self) -> list[SimWorker]:
        """Live workers, in a stable order."""
        processes = self.supervisor.processes
        return [p for p in processes.values() if isinstance(p, SimWorker) and p.is_alive]

    def endpoint_bound(self, router: SimRouter, tenant: TenantName) -> None:
        """Clients of the tenant find the socket, each in its own time."""
        for client in self.clients:
            if client.tenant == tenant:
                self.clock.after(self.clock.random.uniform(0.0005, 0.01), client.connect, router)

    def _apply_config(self) -> None:
        specs = tuple(tenant.spec for name, tenant in self.tenants.items() if name not in self.absent)
        self.wishes.update(list(self.tenants))
        self.supervisor.handle(fleet.ConfigApplied(specs))

    def _is_calm(self) -> bool:
        router = self.supervisor.fleet.children[ROUTER]
        if router.state is not State.READY or self.router is None:
            return False
        return all(
            tenant.phase is Phase.SERVING
            and all(
                # A dead process that was not reaped yet looks READY until its beats are missed.
                (child.state is State.READY and self.supervisor.processes[name].is_alive)
                or (child.state is State.QUARANTINED and child.deadline is None)
                for name, child in self.supervisor.fleet.children.items()
                if name.rpartition("/")[0] == tenant_name
            )
            for tenant_name, tenant in self.supervisor.fleet.tenants.items()
        )

    # Chaos

    def _pick_worker(self) -> SimWorker | None:
        workers = self.workers()
        return self.clock.random.choice(workers) if workers else None

    def _pick_tenant(self) -> TenantName:
        tenant = self.clock.random.choice(sorted(self.tenants))
        self.harmed.add(tenant)
        self.wishes[tenant] += 1
        return tenant

    def _pick_replaced(self) -> TenantName:
        """A tenant whose workers are about to be replaced: with the successor first, its clients notice nothing."""
        tenant = self.clock.random.choice(sorted(self.tenants))
        self.replaced.add(tenant)
        self.wishes[tenant] += 1
        known = self.supervisor.fleet.tenants.get(tenant)
        # Workers that never served are started anew at once, whatever the new version is worth.
        has_served = known is not None and all(place.has_served for place in known.members)
        if self.tenants[tenant].spec.replacement is Replacement.STOP_FIRST or not has_served:
            self.harmed.add(tenant)
        return tenant

    def _kill(self) -> None:
        worker = self._pick_worker()
        if worker is not None:
            self.harmed.add(worker.id.tenant)
            worker.die(ExitStatus(signal=SIGKILL))

    def _freeze(self) -> None:
        worker = self._pick_worker()
        if worker is not None:
            self.harmed.add(worker.id.tenant)
            worker.freeze()
            self.clock.after(self.clock.random.uniform(0.1, 2.0), worker.thaw)

    def _sticky(self) -> None:
        worker = self._pick_worker()
        if worker is not None and worker.is_ready:
            self.harmed.add(worker.id.tenant)
            worker.do(worker.report_sticky_fault)

    def _ill_device(self) -> None:
        """For a while each batch of one tenant ends its worker, and nobody's input is to blame."""
        self.ill_until[self._pick_tenant()] = self.clock.now + self.clock.random.uniform(0.1, 1.0)

    def _kill_router(self) -> None:
        self.router_was_harmed = True
        if self.router is not None:
            self.router.die(ExitStatus(signal=SIGKILL))

    def _freeze_router(self) -> None:
        self.router_was_harmed = True
        if self.router is not None:
            self.router.freeze()
            self.clock.after(self.clock.random.uniform(0.1, 2.0), self.router.thaw)

    def _stop(self) -> None:
        worker = self._pick_worker()
        if worker is not None and not worker.is_frozen:
            worker.stop()
            self.clock.after(self.clock.random.uniform(0.1, 3.0), worker.thaw)

    def _starve(self) -> None:
        worker = self._pick_worker()
        if worker is not None and not worker.is_frozen:
            worker.starve()
            self.clock.after(self.clock.random.uniform(0.1, 2.0), worker.thaw)

    def _stop_router(self) -> None:
        if self.router is not None and not self.router.is_frozen:
            self.router_stood_still = True
            self.router.stop()
            self.clock.after(self.clock.random.uniform(0.1, 3.0), self.router.thaw)

    def _pause_supervisor(self) -> None:
        self.supervisor.pause(self.clock.random.uniform(0.1, 3.0))

    def _pause_all(self) -> None:
        seconds = self.clock.random.uniform(0.1, 3.0)
        self.router_stood_still = True
        self.supervisor.pause(seconds)
        for process in self.supervisor.processes.values():
            if process.is_alive and not process.is_frozen:
                process.stop()
                self.clock.after(seconds, process.thaw)

    def _cut(self) -> None:
        client = self.clock.random.choice(self.clients)
        router = client.router
        if router is not None:
            client.disconnected(router)
            self.clock.after(self.clock.random.uniform(0.0005, 0.01), client.connect, router)

    def _reload(self) -> None:
        change: Any = self.clock.random.choice(("worker", "router", "replicas", "replacement", "absence"))
        tenant = self._pick_replaced() if change == "worker" else self._pick_tenant()
        spec = self.tenants[tenant].spec
        if change == "worker":
            spec = replace(spec, worker_digest=f"w{self.clock.random.random()}")
        elif change == "router":
            spec = replace(spec, router_digest=f"r{self.clock.random.random()}")
        elif change == "replicas":
            spec = replace(spec, replicas=self.clock.random.choice((1, 2, 3)))
        elif change == "replacement":
            spec = replace(spec, replacement=self.clock.random.choice(list(Replacement)))
        else:
            self.absent ^= {tenant}
        self._put_in_force(spec)

    def _bad_reload(self) -> None:
        """A model that cannot be used, or the good one again."""
        spec = self.tenants[self._pick_replaced()].spec
        is_bad = spec.worker_digest.startswith(BAD)
        self._put_in_force(replace(spec, worker_digest=f"{'w' if is_bad else BAD}{self.clock.random.random()}"))

    def _put_in_force(self, spec: TenantSpec) -> None:
        self.tenants[spec.name] = replace(self.tenants[spec.name], spec=spec)
        self._apply_config()

    def _drain(self) -> None:
        self.supervisor.handle(fleet.DrainRequested(self._pick_tenant()))

    def _drain_all(self) -> None:
        for tenant in sorted(self.tenants):
            self.harmed.add(tenant)
            self.supervisor.handle(fleet.DrainRequested(tenant))

    def _resume(self) -> None:
        self.supervisor.handle(fleet.ResumeRequested(self._pick_tenant()))

    def _restart(self) -> None:
        self.supervisor.handle(fleet.TenantRestartRequested(self._pick_replaced()))

    def _settle(self) -> None:
        """Faults stop, poison is gone, and whatever was drained serves again."""
        self.plan = replace(self.plan, spawn_failure=0.0, start_failure=0.0, permanent_failure=0.0, poison=0.0)
        self.supervisor.go_on()
        for process in list(self.supervisor.processes.values()):
            if process.is_frozen:
                process.thaw()
        self.absent.clear()
        for name, tenant in self.tenants.items():
            if tenant.spec.worker_digest.startswith(BAD):
                self.tenants[name] = replace(tenant, spec=replace(tenant.spec, worker_digest="mended"))
        self._apply_config()
        for tenant in sorted(self.tenants):
            if self.supervisor.fleet.tenants[tenant].phase is not Phase.SERVING:
                self.supervisor.handle(fleet.ResumeRequested(tenant))
