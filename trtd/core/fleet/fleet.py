"""`Fleet`: steps every child's lifecycle and keeps each tenant as operators and the configuration want it."""

from __future__ import annotations

from collections.abc import Mapping

from trtd.core import lifecycle
from trtd.core.fleet import briefing
from trtd.core.fleet.invariants import broken_promises
from trtd.core.fleet.roster import Roster
from trtd.core.fleet.tenant import HOPELESS, Target, Tenant, judge_availability
from trtd.core.fleet.vocabulary import (
    ROUTER,
    ChildEffect,
    ChildEvent,
    CloseWorker,
    ConfigApplied,
    ConfigureTenant,
    DrainRequested,
    FleetEffect,
    FleetEvent,
    ForgetTenant,
    Phase,
    ResumeRequested,
    RevokeWorker,
    ShutdownRequested,
    TenantEmptied,
    TenantRestartRequested,
    TenantSpec,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId, WorkerKey
from trtd.core.lifecycle import Child, Desired, State, Timeouts
from trtd.core.restarts import RestartPolicy

DOWN = frozenset({State.STOPPED, State.STUCK})
"""States that a shutdown does not wait for: what the kernel does not let go of is not ours to end."""


def worker_name(key: WorkerKey) -> str:
    """The child name of a worker's place."""
    return str(key)


class Fleet:
    """All children and all tenants. Pure: `handle` returns what the shell shall do, in order.

    Events of one tenant are turned into wishes (who shall run, in which version), and `_settle` compares wishes with
    what is until nothing is left to do. So every mixture of drains, reloads, deaths and restarts ends where the last
    wish says.

    Attributes:
        children: the router and every worker, by name.
        tenants: by name.
        is_stopping: whether a shutdown was asked for.
    """

    def __init__(self, router_timeouts: Timeouts, router_restarts: RestartPolicy) -> None:
        self._roster = Roster()
        self._roster.add(ROUTER, None, router_timeouts, router_restarts)
        self.children: Mapping[str, Child] = self._roster.children
        self.tenants: dict[TenantName, Tenant] = {}
        self._spawned_for: dict[str, Target] = {}
        self._effects: list[FleetEffect] = []
        self._unsettled: dict[TenantName, None] = {}
        self.is_stopping = False

    @property
    def is_stopped(self) -> bool:
        """Whether a shutdown is complete: no child is left that could be ended."""
        return self.is_stopping and all(child.state in DOWN for child in self.children.values())

    def next_deadline(self) -> float | None:
        """The instant at which `handle` has to be called with `TimePassed`; None while no child waits for one."""
        return self._roster.next_deadline()

    def outdated_workers(self, tenant: TenantName) -> list[str]:
        """Workers that were not yet spawned for the present configuration and the newest restart asked for."""
        record = self.tenants[tenant]
        return [name for name in record.active if self._spawned_for.get(name) != record.target]

    def handle(self, event: FleetEvent, now: float) -> list[FleetEffect]:
        """Take note of an event and return what shall be done, in order.

        Args:
            event: what happened. Events about children or tenants that are gone, and wishes that do not fit the phase,
                change nothing.
            now: monotonic seconds, never smaller than before.
        """
        match event:
            case ChildEvent(name, child_event):
                if name in self.children:
                    self._step(name, child_event, now)
            case TimePassed():
                self._pass_time(now)
            case TenantEmptied():
                self._note_emptied(event)
            case ShutdownRequested():
                self._shut_down(event, now)
            case _ if self.is_stopping:
                pass
            case ConfigApplied(specs):
                self._apply_config(specs, now)
            case DrainRequested(name):
                self._drain(name)
            case ResumeRequested(name):
                self._resume(name, now)
            case TenantRestartRequested(name):
                self._restart(name)
        self._settle(now)
        effects, self._effects = self._effects, []
        return effects

    # Children

    def _step(self, name: str, event: lifecycle.Event, now: float) -> None:
        has_changed, effects = self._roster.step(name, event, now)
        for effect in effects:
            self._translate(name, effect, now)
        if has_changed:
            key = self._roster.keys.get(name)
            if key is not None:
                self._unsettled[key.tenant] = None
            elif self.children[name].state in HOPELESS:
                self._unsettled.update(dict.fromkeys(self.tenants))

    def _pass_time(self, now: float) -> None:
        for name in self._roster.take_due(now):
            self._step(name, lifecycle.TimePassed(), now)

    def _translate(self, name: str, effect: lifecycle.Effect, now: float) -> None:
        key = self._roster.keys.get(name)
        match effect:
            case lifecycle.Spawn():
                if key is not None:
                    self._spawned_for[name] = self.tenants[key.tenant].target
                self._effects.append(ChildEffect(name, effect))
            case lifecycle.AskToStop() | lifecycle.KillGroup() | lifecycle.IllegalEvent():
                self._effects.append(ChildEffect(name, effect))
            case lifecycle.OpenGate():
                if key is None:
                    tenants = self.tenants.values()
                    self._effects += briefing.everything(tenants, self.children, self._roster.keys, now)
                else:
                    self._effects += briefing.worker(key, self.children[name])
            case lifecycle.CloseGate(generation):
                if key is not None:
                    self._effects.append(CloseWorker(WorkerId(*key, generation)))
            case lifecycle.RevokeLeases(generation, fault):
                # A fault of a domain wider than the process has to reach the domain's other members from here.
                if key is not None:
                    self._effects.append(RevokeWorker(WorkerId(*key, generation), fault))

    # Wishes

    def _apply_config(self, specs: tuple[TenantSpec, ...], now: float) -> None:
        # The first configuration starts the router; a later one is the way out when its own fault suspended it.
        if self.children[ROUTER].state in (State.STOPPED, State.QUARANTINED):
            self._step(ROUTER, lifecycle.StartRequested(), now)
        named = {spec.name: spec for spec in specs}
        for name, tenant in self.tenants.items():
            if name not in named:
                self._move(tenant, Phase.REMOVING)
        for name, spec in named.items():
            known = self.tenants.get(name)
            if known is None:
                self.tenants[name] = Tenant(spec)
                self._effects.append(ConfigureTenant(name))
                self._unsettled[name] = None
            else:
                self._change(known, spec, now)

    def _change(self, tenant: Tenant, spec: TenantSpec, now: float) -> None:
        before, tenant.spec = tenant.spec, spec
        if (spec.timeouts, spec.restarts) != (before.timeouts, before.restarts):
            for name in tenant.workers.values():
                self._roster.adopt(name, spec.timeouts, spec.restarts)
        if spec.router_digest != before.router_digest:
            self._effects += briefing.configuration(tenant, now)
        if tenant.phase is Phase.REMOVING:
            self._move(tenant, Phase.SERVING)
        self._unsettled[spec.name] = None

    def _move(self, tenant: Tenant, phase: Phase) -> None:
        """Change a tenant's phase; its gate is open in SERVING alone."""
        was_open = tenant.phase is Phase.SERVING
        tenant.phase = phase
        self._unsettled[tenant.spec.name] = None
        is_open = phase is Phase.SERVING
        if is_open == was_open:
            return
        tenant.gate_epoch += 1
        tenant.is_emptied = False
        if is_open:
            # Told once the router knows that workers can be expected again, or it would refuse the first requests.
            tenant.is_gate_told = False
        else:
            self._tell_gate(tenant)

    def _tell_gate(self, tenant: Tenant) -> None:
        tenant.is_gate_told = True
        self._effects.append(briefing.gate(tenant))

    def _drain(self, name: TenantName) -> None:
        tenant = self.tenants.get(name)
        if tenant is not None and tenant.phase is Phase.SERVING:
            self._move(tenant, Phase.DRAINING)

    def _resume(self, name: TenantName, now: float) -> None:
        tenant = self.tenants.get(name)
        if tenant is None or tenant.phase is Phase.REMOVING:
            return
        if tenant.phase is not Phase.SERVING:
            self._move(tenant, Phase.SERVING)
        for worker in (ROUTER, *tenant.active):
            self._step(worker, lifecycle.StartRequested(), now)

    def _restart(self, name: TenantName) -> None:
        tenant = self.tenants.get(name)
        if tenant is not None and tenant.phase is Phase.SERVING:
            tenant.round += 1
            self._unsettled[name] = None

    def _note_emptied(self, event: TenantEmptied) -> None:
        tenant = self.tenants.get(event.tenant)
        if tenant is not None and tenant.phase is not Phase.SERVING and event.epoch == tenant.gate_epoch:
            tenant.is_emptied = True
            self._unsettled[event.tenant] = None

    def _shut_down(self, event: ShutdownRequested, now: float) -> None:
        is_forced = event.forced or self.is_stopping
        self.is_stopping = True
        for tenant in self.tenants.values():
            if tenant.phase is Phase.SERVING:
                self._move(tenant, Phase.DRAINING)
            self._unsettled[tenant.spec.name] = None
        if is_forced:
            # With the router everything that it held is gone, so every tenant counts as empty.
            for name in self.children:
                self._step(name, lifecycle.KillRequested(), now)

    # From wishes to what is

    def _settle(self, now: float) -> None:
        while self._unsettled:
            name = next(iter(self._unsettled))
            del self._unsettled[name]
            if name in self.tenants:
                self._settle_tenant(self.tenants[name], now)
        if self.is_stopping and self.children[ROUTER].desired is Desired.UP:
            workers_are_down = all(self.children[name].state in DOWN for name in self._roster.keys)
            if workers_are_down and not any(tenant.needs_workers for tenant in self.tenants.values()):
                self._step(ROUTER, lifecycle.StopRequested(), now)

    def _settle_tenant(self, tenant: Tenant, now: float) -> None:
        router = self.children[ROUTER]
        if tenant.phase is not Phase.SERVING and (router.desired is Desired.DOWN or router.state in HOPELESS):
            # Nobody will announce that the tenant is empty, and no router means that no request is held.
            tenant.is_emptied = True
        self._settle_places(tenant, now)
        if tenant.phase is Phase.SERVING:
            self._roll(tenant, now)
        elif tenant.is_emptied and all(self.children[name].state is State.STOPPED for name in tenant.workers.values()):
            if tenant.phase is Phase.REMOVING:
                self._vanish(tenant)
                return
            tenant.phase = Phase.DRAINED
        availability = judge_availability(tenant, [self.children[name] for name in tenant.active])
        if availability != tenant.availability:
            tenant.availability = availability
            self._effects += briefing.availability(tenant, now)
        if not tenant.is_gate_told:
            self._tell_gate(tenant)

    def _settle_places(self, tenant: Tenant, now: float) -> None:
        """Have as many places as the configuration names, and each of them up or down as the phase needs it."""
        for replica in range(tenant.spec.replicas):
            if replica not in tenant.workers:
                self._add_place(tenant, replica)
        for replica, name in list(tenant.workers.items()):
            child = self.children[name]
            is_surplus = tenant.is_surplus(replica)
            if is_surplus and child.state is State.STOPPED:
                self._forget_place(tenant, replica)
            elif tenant.needs_workers and not is_surplus:
                if child.desired is Desired.DOWN:
                    self._step(name, lifecycle.StartRequested(), now)
            elif child.desired is Desired.UP:
                wish = lifecycle.DrainRequested() if tenant.needs_workers else lifecycle.StopRequested()
                self._step(name, wish, now)

    def _roll(self, tenant: Tenant, now: float) -> None:
        """Replace outdated workers: at once those that serve nobody, the others one after the other.

        A successor that does not become READY holds up the rest, so that a bad model leaves the other workers serving.
        """
        next_ready: str | None = None
        is_waiting = False
        for name in tenant.active:
            child = self.children[name]
            is_outdated = self._spawned_for.get(name) != tenant.target
            if child.state is State.READY:
                if is_outdated and next_ready is None:
                    next_ready = name
                continue
            is_waiting |= child.state is not State.STUCK
            if is_outdated and child.desired is Desired.UP and not child.restarting:
                self._step(name, lifecycle.RestartRequested(), now)
        if next_ready is not None and not is_waiting:
            self._step(next_ready, lifecycle.RestartRequested(), now)

    def _add_place(self, tenant: Tenant, replica: int) -> None:
        key = WorkerKey(tenant.spec.name, replica)
        name = worker_name(key)
        self._roster.add(name, key, tenant.spec.timeouts, tenant.spec.restarts)
        tenant.workers[replica] = name

    def _forget_place(self, tenant: Tenant, replica: int) -> None:
        name = tenant.workers.pop(replica)
        self._roster.forget(name)
        self._spawned_for.pop(name, None)

    def _vanish(self, tenant: Tenant) -> None:
        for replica in list(tenant.workers):
            self._forget_place(tenant, replica)
        del self.tenants[tenant.spec.name]
        self._effects.append(ForgetTenant(tenant.spec.name))

    def check(self) -> None:
        """Compare the fleet with what must always be true between two events.

        Raises:
            AssertionError: it is not; the text says what and where.
        """
        for child in self.children.values():
            lifecycle.check(child)
        broken = list(broken_promises(self.children, self.tenants, self.next_deadline(), is_stopping=self.is_stopping))
        if broken:
            raise AssertionError("; ".join(broken))
