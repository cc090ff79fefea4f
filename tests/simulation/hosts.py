"""The two processes that decide: the supervisor around the real `Fleet`, the router around the real `Dispatcher`."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from tests.simulation.clock import Clock, Link
from tests.simulation.processes import Entry, Process, SimWorker
from trtd.core import fleet, lifecycle
from trtd.core.dispatch import (
    AnnounceTenantEmpty,
    AnnounceWorkerEmpty,
    BlameClient,
    Deliver,
    Dispatch,
    Dispatcher,
    Refuse,
    Request,
)
from trtd.core.faults import ExitStatus
from trtd.core.fleet import ROUTER, ChildEvent, Fleet
from trtd.core.ids import TenantName, WorkerId, WorkerKey
from trtd.core.lifecycle import Beat, BecameReady, Greeted, State
from trtd.core.patience import OwnTime

RESEND_GRACE_S = 0.1


class SimSupervisor:
    """Performs the fleet's effects; lives as long as the simulation."""

    def __init__(self, clock: Clock, sim: Any) -> None:
        self.clock = clock
        self.sim = sim
        self.fleet = Fleet(sim.plan.router_timeouts, sim.plan.restarts, sim.plan.max_starting)
        self.processes: dict[str, Process] = {}
        self.own = OwnTime()
        self.is_paused = False
        self._held: deque[Any] = deque()
        self._events: deque[Any] = deque()
        self._is_handling = False
        self._timer_at: float | None = None

    def child_event(self, name: str, event: Any) -> None:
        """Something happened to a child."""
        self.handle(ChildEvent(name, event))

    def handle(self, event: Any) -> None:
        """Feed the fleet; effects that bring further events at once are queued behind."""
        if self.is_paused:
            self._held.append(event)
            return
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        while self._events:
            following = self._events.popleft()
            self.sim.promises.told(following)
            for effect in self.fleet.handle(following, self.own.read(self.clock.now)):
                self._perform(effect)
        self._is_handling = False
        if not (isinstance(event, ChildEvent) and isinstance(event.event, Beat)):
            self.sim.promises.fleet_moved(self.fleet)
        self._arm()

    def _arm(self) -> None:
        due = self.fleet.next_deadline()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            self.clock.at(due + self.own.lost_s, self._ring, due)

    def _ring(self, due: float) -> None:
        if self._timer_at == due and not self.is_paused:
            self._timer_at = None
            names = self.fleet.due(self.own.read(self.clock.now))
            self.handle(fleet.TimePassed({name: self.processes[name].sight() for name in names}))

    def pause(self, seconds: float) -> None:
        """Stand still; what comes waits, and is heard before anybody is judged."""
        if self.is_paused:
            return
        self.is_paused = True
        self.own.expect(self.clock.now)
        self.clock.after(seconds, self.go_on)

    def go_on(self) -> None:
        """The end of a pause."""
        if not self.is_paused:
            return
        self.is_paused = False
        self.own.read(self.clock.now)
        self.own.expect(math.inf)
        while self._held:
            self.handle(self._held.popleft())
        self._timer_at = None
        self._arm()

    def _perform(self, effect: Any) -> None:
        match effect:
            case fleet.ChildEffect(name, lifecycle.Spawn(generation)):
                self._spawn(name, generation)
            case fleet.ChildEffect(name, lifecycle.AskToStop()):
                process = self.processes.get(name)
                if process is not None:
                    self.clock.after(0.0005, process.ask_to_stop)  # type: ignore[attr-defined]
            case fleet.ChildEffect(name, lifecycle.KillGroup()):
                process = self.processes.get(name)
                if process is not None:
                    process.die(ExitStatus(signal=9))
            case fleet.ChildEffect(_, lifecycle.SetAside() | lifecycle.TakeBack()):
                pass
            case fleet.ChildEffect(name, illegal):
                raise AssertionError(f"{name}: {illegal}")
            case _:
                self._tell_router(effect)

    def _tell_router(self, effect: Any) -> None:
        router = self.sim.router
        if router is not None and self.fleet.children[ROUTER].state is State.READY:
            router.from_supervisor.send(effect)

    def _spawn(self, name: str, generation: int) -> None:
        draw = self.clock.random.random()
        if name != ROUTER and draw < self.sim.plan.spawn_failure:
            self._events.append(ChildEvent(name, lifecycle.SpawnFailed(generation, "no memory", draw)))
            return

        def on_exit(status: ExitStatus) -> None:
            self.child_event(name, lifecycle.Exited(generation, status, self.clock.random.random()))

        if name == ROUTER:
            process: Process = SimRouter(self.clock, self.sim, generation, on_exit)
            self.sim.router = process
        else:
            tenant, _, replica = name.rpartition("/")
            worker = WorkerId(TenantName(tenant), int(replica), generation)
            process = SimWorker(self.clock, self.sim, worker, on_exit)
            self.sim.promises.spawned(process)
        self.processes[name] = process
        self._events.append(ChildEvent(name, lifecycle.Spawned(generation, process.pid)))


class SimRouter(Process):
    """One life of the router."""

    def __init__(self, clock: Clock, sim: Any, generation: int, on_exit: Any) -> None:
        super().__init__(clock, next(sim.pids), on_exit)
        self.sim = sim
        self.generation = generation
        # A former router's clients need a moment to come back before a drain may be called complete.
        grace_s = 0.0 if generation == 1 else RESEND_GRACE_S
        self.dispatcher = Dispatcher(lambda request: str(request.payload[2]).encode(), generation << 32, grace_s)
        self.gate_epochs: dict[TenantName, int] = {}
        self.endpoints: set[TenantName] = set()
        self.admitted: dict[WorkerId, int] = {}
        self.attached: dict[WorkerId, SimWorker] = {}
        self.revoked: set[WorkerId] = set()
        self.answered: set[Any] = set()
        self.from_supervisor = Link(clock, lambda message: self.do(self._obey, message))
        self.to_supervisor = Link(clock, sim.supervisor.handle)
        self._timer_at: float | None = None
        self._beats = 0
        self.later(clock.random.uniform(0.001, 0.01), self._greet)

    def _greet(self) -> None:
        self._tell_child(Greeted(self.generation))
        self._tell_child(BecameReady(self.generation))
        self._beat()
        for worker in self.sim.workers():
            self.later(self.clock.random.uniform(0.0, 0.01), worker.connect)

    def _beat(self) -> None:
        self._beats += 1
        self._tell_child(Beat(self.generation, self._beats, 0))
        self.later(0.2, self._beat)

    def _tell_child(self, event: Any) -> None:
        self.to_supervisor.send(ChildEvent(ROUTER, event))

    def ask_to_stop(self) -> None:
        """Leave at once: the fleet stops the router last."""
        self.do(self.die, ExitStatus(code=0))

    def _obey(self, message: Any) -> None:
        now = self.clock.now
        match message:
            case fleet.ConfigureTenant(tenant):
                self.dispatcher.configure_tenant(tenant, self.sim.tenants[tenant].limits, now)
                if tenant not in self.endpoints:
                    self.endpoints.add(tenant)
                    self.sim.endpoint_bound(self, tenant)
            case fleet.ForgetTenant(tenant):
                self.dispatcher.forget_tenant(tenant, now)
                self.endpoints.discard(tenant)
            case fleet.SetGate(tenant, is_open, epoch):
                self.gate_epochs[tenant] = epoch
                self.dispatcher.set_gate(tenant, is_open, now)
            case fleet.SetAvailability(tenant, is_available, reason, retry_after_s):
                self.dispatcher.set_availability(tenant, is_available, reason, retry_after_s, now)
            case fleet.AdmitWorker(worker, pid):
                self.admitted[worker] = pid
                self._admit_if_attached(worker)
            case fleet.CloseWorker(worker):
                self.dispatcher.close_worker(worker, now)
            case fleet.SetWorkerAside(worker):
                process = self.attached.pop(worker, None)
                self.dispatcher.detach_worker(worker, now)
                if process is not None:
                    process.hung_up()
            case fleet.RevokeWorker(worker, fault):
                self.revoked.add(worker)
                self.admitted.pop(worker, None)
                self.attached.pop(worker, None)
                self.dispatcher.revoke_worker(worker, fault, now)
        self._turn()

    def _admit_if_attached(self, worker: WorkerId) -> None:
        process = self.attached.get(worker)
        if process is not None and self.admitted.get(worker) == process.pid:
            self.dispatcher.admit_worker(worker, self.clock.now)

    def worker_said(self, worker: SimWorker, item: Any) -> None:
        """A message from a worker: its attachment, or a result."""
        if item == "attach":
            if worker.id not in self.revoked:
                self.dispatcher.detach_worker(worker.id, self.clock.now)
                self.attached[worker.id] = worker
                self._admit_if_attached(worker.id)
        else:
            self.dispatcher.complete(worker.id, [item], self.clock.now)
        self._turn()

    def client_said(self, request: Request) -> None:
        """A request, new or resent."""
        request.received_at = self.clock.now
        self.dispatcher.submit(request, self.clock.now)
        self._turn()

    def _turn(self) -> None:
        self.dispatcher.advance(self.clock.now)
        for effect in self.dispatcher.take_effects():
            self._perform(effect)
        self.sim.promises.router_turned(self)
        due = self.dispatcher.next_deadline()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            self.clock.at(due, self.do, self._ring, due)

    def _ring(self, due: float) -> None:
        if self._timer_at == due:
            self._timer_at = None
            self._turn()

    def _perform(self, effect: Any) -> None:
        match effect:
            case Dispatch(worker, _):
                process = self.attached.get(worker)
                self.sim.promises.dispatched(self, effect)
                if process is None or not process.is_alive or process.from_router is None:
                    # The connection is gone, and nobody has said why.
                    self.dispatcher.suspend_worker(worker, self.clock.now)
                else:
                    process.from_router.send(
                        [
                            Entry(lease, *request.payload, request.deadline, effect.must_run_alone)
                            for lease, request in effect.requests
                        ]
                    )
            case Deliver(request, frames):
                self.sim.promises.delivered(self, request, frames)
                request.route.send((request.id, None, frames))
            case Refuse(request, code, message, _):
                self.sim.promises.refused(self, request, code)
                request.route.send((request.id, code, message))
            case AnnounceTenantEmpty(tenant):
                self.sim.promises.announced_empty(self, tenant)
                self.to_supervisor.send(fleet.TenantEmptied(tenant, self.gate_epochs[tenant]))
            case BlameClient(tenant, owner, _, deaths):
                self.sim.promises.blamed(owner)
                for worker in deaths:
                    name = str(WorkerKey(tenant, worker.replica))
                    self.to_supervisor.send(ChildEvent(name, lifecycle.DeathExcused(worker.generation)))
            case AnnounceWorkerEmpty(worker):
                self.to_supervisor.send(
                    ChildEvent(str(WorkerKey(worker.tenant, worker.replica)), lifecycle.Emptied(worker.generation))
                )

    def close(self) -> None:
        """Everything between it and others is cut; what it held is gone; clients will connect to the next one."""
        self.from_supervisor.cut()
        if self.clock.random.random() < 0.5:
            self.to_supervisor.cut()
        if self.sim.router is self:
            self.sim.router = None
        for worker in self.sim.workers():
            if worker.router is self:
                worker.router = None
        for client in self.sim.clients:
            client.disconnected(self)
