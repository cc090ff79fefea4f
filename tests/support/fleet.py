"""A little world around a `Fleet`: processes that do as they are told, and a router that remembers what it was told.

Events wait in one queue for each source until they are delivered, so a test decides in which order sources are heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.support.supervision import CLEAN
from trtd.core import lifecycle
from trtd.core.faults import ExitStatus
from trtd.core.fleet import (
    ROUTER,
    AdmitWorker,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    ConfigApplied,
    ConfigureTenant,
    Fleet,
    FleetEffect,
    FleetEvent,
    ForgetTenant,
    Phase,
    RevokeWorker,
    SetAvailability,
    SetGate,
    TenantEmptied,
    TenantSpec,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId
from trtd.core.lifecycle import State, Timeouts
from trtd.core.restarts import RestartPolicy

STRICT = RestartPolicy(budget=0, probe_after_s=0.0)
"""One death suspends a child, until somebody resumes it."""
KILLED = ExitStatus(signal=9)

E = TypeVar("E", bound=FleetEffect)


@dataclass
class Told:
    """What a running router was told."""

    configured: set[str] = field(default_factory=set)
    gates: dict[str, tuple[bool, int]] = field(default_factory=dict)
    availability: dict[str, SetAvailability] = field(default_factory=dict)
    admitted: dict[WorkerId, int] = field(default_factory=dict)
    closed: set[WorkerId] = field(default_factory=set)


class FleetWorld:
    """A fleet, its processes and its router.

    Attributes:
        fleet: under test; checked after each event.
        now: monotonic seconds.
        pids: of live processes, by child name.
        queues: events that wait to be delivered, by source.
        told: what the present router was told, None while there is none that listens.
        effects: everything that the fleet asked for.
        start_status: children that leave with this status instead of becoming ready.
        deaf: children that do not leave when they are asked.
        busy: tenants that have requests left, so that a closed gate does not empty them.
    """

    def __init__(self, *specs: TenantSpec, policy: RestartPolicy | None = None) -> None:
        self.fleet = Fleet(Timeouts(), policy or RestartPolicy())
        self.now = 100.0
        self.pids: dict[str, int] = {}
        self.queues: dict[str, deque[FleetEvent]] = {}
        self.told: Told | None = None
        self.effects: list[FleetEffect] = []
        self.start_status: dict[str, ExitStatus] = {}
        self.deaf: set[str] = set()
        self.busy: set[str] = set()
        self._next_pid = 1000
        if specs:
            self.apply(*specs)
            self.run()

    # What a test does

    def handle(self, event: FleetEvent) -> list[FleetEffect]:
        """Give the fleet an event and perform what it wants; returns the effects."""
        effects = self.fleet.handle(event, self.now)
        self.fleet.check()
        if self.told is None and self.fleet.children[ROUTER].state is State.READY and ROUTER in self.pids:
            self.told = Told()
        for effect in effects:
            self._perform(effect)
        self.effects += effects
        return effects

    def apply(self, *specs: TenantSpec) -> list[FleetEffect]:
        """Apply a configuration."""
        return self.handle(ConfigApplied(specs))

    def deliver(self, source: str) -> list[FleetEffect]:
        """Deliver the oldest event of a source."""
        return self.handle(self.queues[source].popleft())

    def sources(self) -> list[str]:
        """Sources that have something to deliver."""
        return [source for source, queue in self.queues.items() if queue]

    def run(self) -> list[FleetEffect]:
        """Deliver everything until all is quiet; returns the effects."""
        first = len(self.effects)
        while sources := self.sources():
            self.deliver(sources[0])
        return self.effects[first:]

    def pass_time(self, seconds: float) -> list[FleetEffect]:
        """Let time pass without a life sign of anybody; timers fire when they are due."""
        first, ends_at = len(self.effects), self.now + seconds
        while (at := self.fleet.next_deadline()) is not None and at <= ends_at:
            self.now = max(self.now, at)
            self.handle(TimePassed())
            self.run()
        self.now = ends_at
        return self.effects[first:]

    def beat(self) -> None:
        """A life sign of every child in service."""
        for name, child in self.fleet.children.items():
            if child.state in lifecycle.IN_SERVICE:
                self.handle(ChildEvent(name, lifecycle.Beat(child.generation, child.progress + 1, 0)))

    def kill(self, name: str, status: ExitStatus = KILLED) -> None:
        """End a process; its words that were not delivered are lost with it."""
        generation = self.fleet.children[name].generation
        pending = self.queues.setdefault(name, deque())
        is_announced = not any(
            isinstance(event, ChildEvent) and isinstance(event.event, lifecycle.Spawned) for event in pending
        )
        pid = self.pids.pop(name)
        pending.clear()
        if not is_announced:
            pending.append(ChildEvent(name, lifecycle.Spawned(generation, pid)))
        pending.append(ChildEvent(name, lifecycle.Exited(generation, status, 0.5)))
        if name == ROUTER:
            self.told = None

    def finish_requests(self, tenant: str) -> None:
        """The last request of a tenant is answered."""
        self.busy.discard(tenant)
        if self.told is not None and tenant in self.told.gates:
            self._announce_empty(tenant)

    def states(self) -> dict[str, State]:
        """State of each child."""
        return {name: child.state for name, child in self.fleet.children.items()}

    def phase(self, tenant: str) -> Phase:
        """Phase of a tenant."""
        return self.fleet.tenants[TenantName(tenant)].phase

    # What the world does

    def _perform(self, effect: FleetEffect) -> None:
        if isinstance(effect, ChildEffect):
            self._perform_on_process(effect.name, effect.effect)
        elif self.told is not None:
            self._tell_router(self.told, effect)

    def _perform_on_process(self, name: str, effect: lifecycle.Effect) -> None:
        queue = self.queues.setdefault(name, deque())
        match effect:
            case lifecycle.Spawn(generation):
                assert name not in self.pids, f"{name} lives already"
                self._next_pid += 1
                self.pids[name] = self._next_pid
                queue.append(ChildEvent(name, lifecycle.Spawned(generation, self._next_pid)))
                if name in self.start_status:
                    del self.pids[name]
                    queue.append(ChildEvent(name, lifecycle.Exited(generation, self.start_status[name], 0.5)))
                else:
                    queue.append(ChildEvent(name, lifecycle.Greeted(generation)))
                    queue.append(ChildEvent(name, lifecycle.BecameReady(generation)))
            case lifecycle.AskToStop():
                if name in self.pids and name not in self.deaf:
                    self.kill(name, CLEAN)
            case lifecycle.KillGroup():
                if name in self.pids:
                    self.kill(name)
            case _:
                raise AssertionError(f"{name}: {effect}")

    def _tell_router(self, told: Told, effect: FleetEffect) -> None:
        match effect:
            case ConfigureTenant(tenant):
                told.configured.add(tenant)
            case ForgetTenant(tenant):
                told.configured.remove(tenant)
                del told.gates[tenant], told.availability[tenant]
            case SetGate(tenant, is_open, epoch):
                assert tenant in told.configured
                assert not is_open or told.availability[tenant].is_available or self._is_hopeless(tenant)
                told.gates[tenant] = (is_open, epoch)
                if tenant not in self.busy:
                    self._announce_empty(tenant)
            case SetAvailability(tenant):
                assert tenant in told.configured
                told.availability[tenant] = effect
            case AdmitWorker(worker, pid):
                assert worker not in told.admitted
                told.admitted[worker] = pid
            case CloseWorker(worker):
                told.closed.add(worker)
                emptied = ChildEvent(str(worker.key), lifecycle.Emptied(worker.generation))
                self.queues.setdefault(ROUTER, deque()).append(emptied)
            case RevokeWorker(worker):
                told.admitted.pop(worker, None)
                told.closed.discard(worker)

    def _announce_empty(self, tenant: str) -> None:
        assert self.told is not None
        is_open, epoch = self.told.gates[tenant]
        if not is_open:
            self.queues.setdefault(ROUTER, deque()).append(TenantEmptied(TenantName(tenant), epoch))

    def _is_hopeless(self, tenant: str) -> bool:
        workers = [self.fleet.children[name] for name in self.fleet.tenants[TenantName(tenant)].hopes]
        return all(child.state in (State.QUARANTINED, State.STUCK) for child in workers)


def touched(effects: Sequence[FleetEffect]) -> set[str]:
    """Names of children that the effects concern."""
    return {effect.name for effect in effects if isinstance(effect, ChildEffect)}


def spawns(effects: Sequence[FleetEffect]) -> list[str]:
    """Names of children that the effects spawn."""
    return [
        effect.name
        for effect in effects
        if isinstance(effect, ChildEffect) and isinstance(effect.effect, lifecycle.Spawn)
    ]


def of_type(effects: Sequence[FleetEffect], kind: type[E]) -> list[E]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]
