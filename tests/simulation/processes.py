"""Modelled processes: alive until they die, sometimes frozen, and void in all that they had scheduled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.simulation.clock import Clock, Link
from trtd.core.batching import Batcher, BatchLimits, Waiting
from trtd.core.cuda_faults import sticky_fault
from trtd.core.faults import ExitStatus, Fault, FaultKind
from trtd.core.ids import LeaseId, RequestId, TenantName, WorkerId
from trtd.core.lifecycle import Beat, BecameReady, FaultReported, Greeted
from trtd.core.patience import Sight, ThreadSight
from trtd.errors import ErrorCode

SIGKILL = 9
SIGSEGV = 11
POISON = 666
"""Input that ends the worker which runs it."""
HANG = 667
"""Input whose run never returns."""
BEAT_EVERY_S = 0.2
IDLE_BEAT_EVERY_S = 1.0


class Entry(NamedTuple):
    """One request on its way to a worker."""

    lease: LeaseId
    tenant: TenantName
    id: RequestId
    value: int
    deadline: float
    must_run_alone: bool


class Answer(NamedTuple):
    """What a worker answers: what for, and who it was."""

    tenant: TenantName
    id: RequestId
    value: int
    worker: WorkerId


def answer_to(value: int) -> int:
    """What a right worker answers."""
    return value * 3 + 1


class Process:
    """One process. What it scheduled with `later` waits while it is frozen, and is void when it is dead."""

    def __init__(self, clock: Clock, pid: int, on_exit: Callable[[ExitStatus], None]) -> None:
        self.clock = clock
        self.pid = pid
        self.is_alive = True
        self.is_frozen = False
        self.is_stopped = False
        self.is_starved = False
        self.was_frozen = False
        self._held: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._on_exit = on_exit

    def later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        """Do it after a delay, if the process still lives."""
        self.clock.after(delay_s, self.do, call, *args)

    def do(self, call: Callable[..., None], *args: Any) -> None:
        """Do it now, or when the process is thawed, or never."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._held.append((call, args))
        else:
            call(*args)

    def freeze(self) -> None:
        """Hang: what comes in waits, and the kernel sees a process that sleeps."""
        self.is_frozen = self.was_frozen = True

    def stop(self) -> None:
        """Stand still as after SIGSTOP, for all to see."""
        self.is_stopped = True
        self.freeze()

    def starve(self) -> None:
        """Get no processor, however much it wants one."""
        self.is_starved = True
        self.freeze()

    def sight(self) -> Sight:
        """What the kernel says of it; a process that runs has run since the last look."""
        ran_s = 0.0 if self.is_frozen else self.clock.now
        return Sight(self.is_stopped, {self.pid: ThreadSight(self.is_starved, ran_s, 0.0)})

    def thaw(self) -> None:
        """Go on with everything that waited."""
        self.is_frozen = self.is_stopped = self.is_starved = False
        while self._held and self.is_alive and not self.is_frozen:
            call, args = self._held.popleft()
            call(*args)

    def die(self, status: ExitStatus) -> None:
        """End at once; the supervisor hears of it when the process is reaped."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.close()
        slow = self.clock.random.random() < 0.01
        self.clock.after(self.clock.random.uniform(1.0, 3.0) if slow else 0.0005, self._on_exit, status)

    def close(self) -> None:
        """What the kernel closes for the dead."""


@dataclass(slots=True, eq=False)
class Leased(Waiting):
    """A request that waits in a worker."""

    entry: Entry


class SimWorker(Process):
    """A worker: says hello, loads, attaches, runs batches of the real `Batcher`, answers.

    Attributes:
        id: which life of which worker.
        digest: of the configuration that it was spawned for.
        to_supervisor: link for lifecycle events.
        router: the router it is connected to, None while there is none.
    """

    def __init__(self, clock: Clock, sim: Any, worker: WorkerId, on_exit: Callable[[ExitStatus], None]) -> None:
        super().__init__(clock, next(sim.pids), on_exit)
        self.sim = sim
        self.id = worker
        self.to_supervisor = Link(clock, lambda event: sim.supervisor.child_event(str(worker.key), event))
        self.router: Any = None
        self.from_router: Link | None = None
        self.to_router: Link | None = None
        self.is_ready = False
        self.has_failed = False
        self.started = 0
        self.is_resting = False
        self._beat_at = 0.0
        self._seen = 0
        self.running: set[int] = set()
        place = sim.supervisor.fleet.place(str(worker.key))
        self.digest: str = place.target.worker_digest
        spec = sim.tenants[worker.tenant]
        self.slots = spec.slots
        self.batcher: Batcher[Leased] = Batcher()
        self.batch_limits = BatchLimits(spec.max_batch, spec.max_delay_s)
        draw = clock.random.random()
        self.later(clock.random.uniform(0.001, 0.02), self._greet)
        if draw < sim.plan.start_failure:
            self.later(clock.random.uniform(0.01, 0.1), self.die, ExitStatus(signal=SIGSEGV))

    def _greet(self) -> None:
        self._tell(Greeted(self.id.generation))
        if self.digest.startswith("bad") or self.clock.random.random() < self.sim.plan.permanent_failure:
            self._tell(FaultReported(self.id.generation, Fault(FaultKind.BAD_MODEL, "truncated", permanent=True)))
            self.later(0.001, self.die, ExitStatus(code=65))
            return
        self.later(self.clock.random.uniform(0.005, 0.1), self._become_ready)

    def _become_ready(self) -> None:
        self.is_ready = True
        self._tell(BecameReady(self.id.generation))
        self.connect()
        self._beat()

    def _beat(self) -> None:
        if self.clock.now < self._beat_at:
            return
        self.is_resting = not self.running and self.started == self._seen
        self._seen = self.started
        self._say_beat()
        every_s = IDLE_BEAT_EVERY_S if self.is_resting else BEAT_EVERY_S
        self._beat_at = self.clock.now + every_s
        self.later(every_s, self._beat)

    def _say_beat(self) -> None:
        # The oldest batch that runs, so that one slot's hang is not hidden by the others' progress.
        progress = min(self.running, default=self.started)
        self._tell(Beat(self.id.generation, progress, len(self.running), self.is_resting))

    def _tell(self, event: Any) -> None:
        self.to_supervisor.send(event)

    def connect(self) -> None:
        """Attach to the present router, if there is one (its connections come up one after the other)."""
        router = self.sim.router
        if not self.is_alive or not self.is_ready or router is None or self.router is router:
            return
        self.router = router
        self.to_router = Link(self.clock, lambda item: router.do(router.worker_said, self, item))
        self.from_router = Link(self.clock, lambda entries: self.do(self._receive, entries))
        self.to_router.send("attach")

    def hung_up(self) -> None:
        """The router closed the connection; it is made anew as soon as this process runs."""
        for link in (self.from_router, self.to_router):
            if link is not None:
                link.cut()
        self.router = None
        self.later(0.001, self.connect)

    def ask_to_stop(self) -> None:
        """Finish what runs, then leave with code 0."""
        self.do(self._stop)

    def _stop(self) -> None:
        if self.running or len(self.batcher):
            self.later(0.01, self._stop)
        else:
            self.die(ExitStatus(code=0))

    def _receive(self, entries: list[Entry]) -> None:
        now = self.clock.now
        for entry in entries:
            group = ("alone", entry.lease) if entry.must_run_alone else ("model", entry.value % 2)
            self.batcher.extend([Leased(group, 1, now, entry.deadline, self.batch_limits, entry)])
        self._start_batches()

    def _start_batches(self) -> None:
        while len(self.running) < self.slots:
            now = self.clock.now
            for dropped in self.batcher.take_expired(now):
                self._answer(dropped.entry, ErrorCode.DEADLINE_EXCEEDED)
            batch = self.batcher.take(now)
            if batch is None:
                due = self.batcher.next_due()
                if due is not None:
                    self.later(max(due - now, 0.0), self._start_batches)
                return
            number = self.started
            self.started += 1
            self.running.add(number)
            if self.is_resting:
                self.is_resting = False
                self._beat_at = self.clock.now
                self._say_beat()
                self.later(BEAT_EVERY_S, self._beat)
            values = [waiting.entry.value for waiting in batch]
            if HANG in values:
                return
            compute_s = self.clock.random.expovariate(1 / 0.01)
            if now < self.sim.ill_until.get(self.id.tenant, 0.0):
                self.later(compute_s, self.report_device_fault)
                return
            if POISON in values:
                self.later(compute_s, self.die, ExitStatus(signal=SIGSEGV))
                return
            self.later(compute_s, self._finish, number, batch)

    def _finish(self, number: int, batch: list[Leased]) -> None:
        self.running.discard(number)
        for waiting in batch:
            self._answer(waiting.entry, None)
        self._start_batches()

    def _answer(self, entry: Entry, code: ErrorCode | None) -> None:
        if self.to_router is not None:
            answer = Answer(entry.tenant, entry.id, answer_to(entry.value), self.id)
            self.to_router.send((entry.lease, code, answer))

    def report_device_fault(self) -> None:
        """Like an uncorrectable error of the device's memory, whatever runs."""
        self._tell(FaultReported(self.id.generation, sticky_fault(214, "run")))
        self.later(0.001, self.die, ExitStatus(code=75))

    def report_sticky_fault(self) -> None:
        """Like a sticky CUDA error: say so, then leave; nothing is answered any more."""
        self._tell(FaultReported(self.id.generation, Fault(FaultKind.TEMPORARY, "sticky")))
        self.later(0.001, self.die, ExitStatus(code=75))

    def close(self) -> None:
        """What was sent before the death may still arrive, or not; nothing more comes in."""
        if self.from_router is not None:
            self.from_router.cut()
        if self.clock.random.random() < 0.5:
            if self.to_router is not None:
                self.to_router.cut()
            self.to_supervisor.cut()
