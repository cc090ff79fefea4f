"""The supervisor's loop: events go into the fleet one at a time, its effects are performed in order, one timer waits.

Its clock is its own time (`trtd.child.own_loop`), so nobody is judged for a time in which it did not run itself.

Whatever happens becomes a `FleetEvent` and comes through `submit`: messages and deaths of children, commands of
operators, signals, the passing of time. Nothing here decides; nothing here waits for a child, an operator or a disk.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

import trtd
from trtd import observe
from trtd.core import lifecycle
from trtd.core.faults import Fault, FaultKind
from trtd.core.fleet import (
    ROUTER,
    ChildEffect,
    ChildEvent,
    ConfigApplied,
    Fleet,
    FleetEffect,
    FleetEvent,
    ForgetTenant,
    Role,
    TimePassed,
)
from trtd.core.flight import PAGE_BYTES
from trtd.core.ids import TenantName, WorkerKey
from trtd.core.lifecycle import Child
from trtd.errors import Blame, Unavailable
from trtd.supervisor import narration, room
from trtd.supervisor.cgroup import Delegation
from trtd.supervisor.children import Children
from trtd.supervisor.facts import Facts
from trtd.supervisor.metrics import make_metrics
from trtd.supervisor.plan import Plan
from trtd.supervisor.processes import Processes
from trtd.supervisor.router_link import RouterLink
from trtd.supervisor.sights import look_at
from trtd.supervisor.spawn import MPS_VARIABLE, ChildOrder, blank_page
from trtd.supervisor.status import About, make_status, needs_gpu
from trtd.wire.health import Metrics
from trtd.wire.settings import Listener, TenantEndpoint
from trtd.wire.status import Status

log = observe.get_logger()


class Supervisor:
    """The daemon between its start and its end.

    Attributes:
        plan: the configuration in force.
        fleet: the state of everything; only `submit` changes it.
        facts: what was seen of the children.
        router: what is told to the router.
        processes: the live children.
        stopped: set when a shutdown is complete.
    """

    def __init__(
        self,
        plan: Plan,
        environ: Mapping[str, str],
        loop: asyncio.AbstractEventLoop,
        delegation: Delegation | None = None,
        memory_limits: str = "",
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self.plan = plan
        self.fleet = Fleet(plan.router_timeouts, plan.router_restarts, plan.max_starting)
        self.facts = Facts()
        self.stopped = asyncio.Event()
        self._loop = loop
        self._started_at = loop.time()
        self._version: str = trtd.__version__
        self._memory_limits = memory_limits
        self._listeners = listeners
        self._flight_fd = blank_page("trtd-flight", PAGE_BYTES)
        self._is_mps = MPS_VARIABLE in environ
        # A tenant that the configuration no longer names still needs its workers until it is drained.
        self._plan_of: dict[str, Plan] = {}
        # A worker that has no successor yet comes back from a crash with the settings that it served with.
        self._plans_by_digest: dict[str, dict[str, Plan]] = {}
        self._inbox: deque[FleetEvent] = deque()
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[asyncio.Future[None]] = []
        self.children = Children(self.fleet, self.facts, self.submit, self, delegation)
        self.processes = Processes(self.children, environ, loop)
        self.router = RouterLink(self.processes, self.facts, self._router_is_deaf)
        self.children.connect(self.processes, self.router)

    # Events

    def submit(self, event: FleetEvent) -> None:
        """Hand an event to the fleet and perform what it wants; events that come of that follow in order."""
        self._inbox.append(event)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._inbox:
                self._turn(self._inbox.popleft())
        finally:
            self._is_busy = False

    def _turn(self, event: FleetEvent) -> None:
        now = self._loop.time()
        if isinstance(event, ChildEvent) and isinstance(event.event, lifecycle.Beat):
            # Ten a second and child: nobody waits for them, and there is no story to tell.
            self._perform_all(self.fleet.handle(event, now), now)
            self._set_timer(now)
            return
        children = dict(self.fleet.children)
        stories = narration.tenant_stories(self.fleet)
        effects = self.fleet.handle(event, now)
        self._narrate(event, children, stories, now)
        for name in children.keys() - self.fleet.children.keys():
            self.facts.forget_child(name)
        self._perform_all(effects, now)
        self._set_timer(now)
        self._wake_watchers()
        if self.fleet.is_stopped:
            self.stopped.set()

    def _narrate(self, event: FleetEvent, children: dict[str, Child], stories: narration.Stories, now: float) -> None:
        cause = event.event if isinstance(event, ChildEvent) else event
        for name, after in self.fleet.children.items():
            before = children.get(name)
            if before is not None and before.state is not after.state:
                own = cause if isinstance(event, ChildEvent) and event.name == name else None
                narration.tell_child_moved(before, after, own, now)
        if isinstance(event, ChildEvent) and event.name in children.keys() - self.fleet.children.keys():
            # Its place went with it, so its end is told from what it was.
            gone, _ = lifecycle.step(children[event.name], event.event, now)
            narration.tell_child_moved(children[event.name], gone, event.event, now)
        narration.tell_tenants_moved(stories, narration.tenant_stories(self.fleet))

    def _perform_all(self, effects: list[FleetEffect], now: float) -> None:
        for effect in effects:
            try:
                self._perform(effect, now)
            except Exception as error:
                # A defect of ours must not take the effects of other tenants with it.
                log.error("effect.failed", effect=repr(effect), cause=repr(error), exc_info=True)

    def _perform(self, effect: FleetEffect, now: float) -> None:
        if isinstance(effect, ChildEffect):
            self.children.perform(effect, now)
            return
        self.router.perform(effect, self.endpoints, now)
        if isinstance(effect, ForgetTenant):
            self.facts.forget_tenant(effect.tenant)
            self._plan_of.pop(effect.tenant, None)
            self._plans_by_digest.pop(effect.tenant, None)

    def _set_timer(self, now: float) -> None:
        deadline = self.fleet.next_deadline()
        if self._timer is not None:
            # A timer that is early costs one turn in which nothing happens.
            if deadline is not None and not self._timer.cancelled() and self._timer.when() <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(max(deadline, now), self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        # What a child said before this instant counts, however long this loop took to come round to it.
        self.processes.hear_all()
        due = self.fleet.due(self._loop.time())
        sights = {name: sight for name, pid in due.items() if (sight := look_at(pid)) is not None}
        self.submit(TimePassed(sights))

    def _router_is_deaf(self, generation: int) -> None:
        fault = Fault(FaultKind.BEAT_MISSED, "did not read its channel", blame=Blame.DAEMON)
        self.submit(ChildEvent(ROUTER, lifecycle.FaultReported(generation, fault)))

    # The configuration

    @property
    def endpoints(self) -> dict[str, TenantEndpoint]:
        """What the router is told of each tenant, those included that are being removed."""
        return {name: plan.endpoints[name] for name, plan in self._plan_of.items()}

    def apply(self, plan: Plan) -> None:
        """Put a configuration in force: the first one, or another one that was read while the daemon runs."""
        self.plan = plan
        self._plan_of.update(dict.fromkeys(plan.config.tenants, plan))
        for spec in plan.specs:
            self._plans_by_digest.setdefault(spec.name, {})[spec.worker_digest] = plan
        self.submit(ConfigApplied(plan.specs))
        for name, tenant in self.fleet.tenants.items():
            in_use = {tenant.spec.worker_digest, *(place.target.worker_digest for place in tenant.places.values())}
            plans = self._plans_by_digest[name]
            self._plans_by_digest[name] = {digest: plans[digest] for digest in in_use}

    def order(self, name: str, generation: int) -> tuple[ChildOrder, int]:
        """How a child is started now, and its memory limit in bytes (see `trtd.supervisor.children.Orders`)."""
        if name == ROUTER:
            order = self.plan.router_order(generation, self._listeners, self._flight_fd)
            return order, self.plan.memory_limit_bytes(ROUTER)
        tenant, _, replica = name.partition("/")
        place = self.fleet.place(name)
        if place is None:
            raise Unavailable(f"there is no worker {name}")
        if place.role is Role.SUCCESSOR:
            room.require(tenant, self._resident_bytes(TenantName(tenant)), room.free_bytes())
        plan = self._plans_by_digest[tenant][place.target.worker_digest]
        trials = self.facts.tenant(tenant, self._loop.time()).trials.known
        order = plan.worker_order(WorkerKey(TenantName(tenant), int(replica)), generation, trials)
        return order, plan.memory_limit_bytes(name)

    def has_device(self, name: str) -> bool:
        """Whether a worker works on a CUDA device (see `trtd.supervisor.children.Orders`)."""
        tenant = name.partition("/")[0]
        place = self.fleet.place(name)
        plan = self._plan_of[tenant] if place is None else self._plans_by_digest[tenant][place.target.worker_digest]
        return needs_gpu(plan.config.tenants[tenant])

    def _resident_bytes(self, tenant: TenantName) -> int:
        """Resident memory of the smallest worker of a tenant that is to be replaced; 0 where none has told."""
        told = [self.facts.child(place.name).rss_bytes for place in self.fleet.tenants[tenant].outdated]
        return min(filter(None, told), default=0)

    # For those who look and wait

    def is_required(self, tenant: TenantName) -> bool:
        """Whether the daemon counts as failed without this tenant."""
        plan = self._plan_of.get(tenant)
        return plan is not None and plan.config.tenants[tenant].required

    def status(self, only: str | None = None) -> Status:
        """The status record at this instant."""
        about = About(
            pid=os.getpid(),
            version=self._version,
            started_at=self._started_at,
            config_files=tuple(str(path) for path in self.plan.loaded.files),
            runtime_dir=self.plan.config.daemon.runtime_dir,
            memory_limits=self._memory_limits,
            endpoints=self.endpoints,
            tables={name: plan.config.tenants[name] for name, plan in self._plan_of.items()},
            is_mps=self._is_mps,
        )
        return make_status(self.fleet, self.facts, about, now=self._loop.time(), wall=datetime.now(UTC), only=only)

    def metrics(self) -> Metrics:
        """What the metrics are made of, at this instant."""
        return make_metrics(self.status(), self.facts)

    async def changed(self, timeout_s: float) -> None:
        """Wait until something happened to the fleet, but no longer than this."""
        watcher: asyncio.Future[None] = self._loop.create_future()
        self._watchers.append(watcher)
        await asyncio.wait([watcher], timeout=timeout_s)
        if not watcher.done():
            self._watchers.remove(watcher)

    def _wake_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def close(self) -> None:
        """Let go of everything; what still lives is killed."""
        if self._timer is not None:
            self._timer.cancel()
        unreaped = self.processes.close()
        os.close(self._flight_fd)
        if unreaped:
            log.error("children.left_unreaped", pids=unreaped)
