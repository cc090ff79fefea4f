"""`Fleet`: steps every child's lifecycle and keeps each tenant as operators and the configuration want it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from trtd.core import lifecycle
from trtd.core.fleet import briefing, replacement
from trtd.core.fleet.invariants import broken_promises
from trtd.core.fleet.roster import Roster
from trtd.core.fleet.starts import LOADING, Start, Starts
from trtd.core.fleet.tenant import HOPELESS, Place, Role, Tenant, judge_availability
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
    Replacement,
    ResumeRequested,
    RevokeWorker,
    SetWorkerAside,
    ShutdownRequested,
    TenantEmptied,
    TenantRestartRequested,
    TenantSpec,
    TimePassed,
)
from trtd.core.ids import TenantName, WorkerId, WorkerKey
from trtd.core.lifecycle import Child, Desired, State, Timeouts
from trtd.core.patience import Sight
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

    Args:
        router_timeouts: patience with the router.
        router_restarts: policy for it.
        max_starting: workers that load at one time (see `trtd.core.fleet.starts`); 0 for no bound.
    """

    def __init__(self, router_timeouts: Timeouts, router_restarts: RestartPolicy, max_starting: int = 0) -> None:
        self._roster = Roster()
        self._roster.add(ROUTER, None, router_timeouts, router_restarts)
        self.children: Mapping[str, Child] = self._roster.children
        self.tenants: dict[TenantName, Tenant] = {}
        self._starts = Starts(max_starting)
        self._effects: list[FleetEffect] = []
        self._unsettled: dict[TenantName, None] = {}
        # Of all tenants that vanished, none of which is remembered: one of them may come back.
        self._last_generation = 0
        self.is_stopping = False

    @property
    def is_stopped(self) -> bool:
        """Whether a shutdown is complete: no child is left that could be ended."""
        return self.is_stopping and all(child.state in DOWN for child in self.children.values())

    def next_deadline(self) -> float | None:
        """The instant at which `handle` has to be called with `TimePassed`; None while nobody waits for one."""
        instants = (self._roster.next_deadline(), self._starts.next_release())
        return min((at for at in instants if at is not None), default=None)

    def due(self, now: float) -> dict[str, int]:
        """Process ids of the children that `TimePassed` would judge now, by name."""
        children = self.children.values()
        return {
            child.name: child.pid
            for child in children
            if child.deadline is not None and child.deadline <= now and child.pid is not None
        }

    def outdated_workers(self, tenant: TenantName) -> list[str]:
        """Workers that were not yet spawned for the present configuration and the newest restart asked for."""
        return [place.name for place in self.tenants[tenant].outdated]

    def specs(self) -> dict[TenantName, TenantSpec]:
        """The configuration of each tenant now."""
        return {name: tenant.spec for name, tenant in self.tenants.items()}

    def progress(self, tenant: TenantName) -> replacement.Progress:
        """How far a tenant's workers are from what was wished of them."""
        return replacement.progress(self.tenants[tenant], self.children)

    def place(self, name: str) -> Place | None:
        """The place of a worker; None for the router, and for workers that are gone."""
        key = self._roster.keys.get(name)
        return None if key is None else self.tenants[key.tenant].places[key.replica]

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
            case TimePassed(sights):
                self._pass_time(sights, now)
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
        while (start := self._starts.take(now)) is not None:
            self._effects.append(ChildEffect(start.name, start.spawn))
        effects, self._effects = self._effects, []
        return effects

    # Children

    def _step(self, name: str, event: lifecycle.Event, now: float) -> None:
        has_changed, effects = self._roster.step(name, event, now)
        for effect in effects:
            self._translate(name, effect, now)
        if has_changed:
            key = self._roster.keys.get(name)
            self._note_start(name, now)
            if key is not None:
                self._unsettled[key.tenant] = None
            elif self.children[name].state in HOPELESS:
                self._unsettled.update(dict.fromkeys(self.tenants))

    def _note_start(self, name: str, now: float) -> None:
        """Give up the place of a worker that does not load any more, and the start of one that does not want it."""
        child = self.children[name]
        if child.state not in LOADING:
            self._starts.ended(name)
        if child.state is not State.STARTING and (start := self._starts.withdraw(name)) is not None:
            self._step(name, lifecycle.SpawnWithdrawn(start.spawn.generation), now)

    def _pass_time(self, sights: Mapping[str, Sight], now: float) -> None:
        for name in self._roster.take_due(now):
            self._step(name, lifecycle.TimePassed(sights.get(name)), now)

    def _translate(self, name: str, effect: lifecycle.Effect, now: float) -> None:
        key = self._roster.keys.get(name)
        match effect:
            case lifecycle.Spawn() if key is not None:
                is_urgent = self.tenants[key.tenant].places[key.replica].has_served
                self._starts.add(Start(name, key.tenant, effect, is_urgent))
            case (
                lifecycle.Spawn()
                | lifecycle.AskToStop()
                | lifecycle.KillGroup()
                | lifecycle.TakeBack()
                | lifecycle.IllegalEvent()
            ):
                self._effects.append(ChildEffect(name, effect))
            case lifecycle.SetAside(generation):
                self._effects.append(ChildEffect(name, effect))
                if key is not None:
                    self._effects.append(SetWorkerAside(WorkerId(*key, generation)))
            case lifecycle.OpenGate():
                if key is None:
                    tenants = self.tenants.values()
                    self._effects += briefing.everything(tenants, self.children, self._roster.keys, now)
                else:
                    self.tenants[key.tenant].places[key.replica].has_served = True
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
                self.tenants[name] = Tenant(spec, last_generation=self._last_generation)
                self._effects.append(ConfigureTenant(name))
                self._unsettled[name] = None
            else:
                self._change(known, spec, now)

    def _change(self, tenant: Tenant, spec: TenantSpec, now: float) -> None:
        before, tenant.spec = tenant.spec, spec
        tenant.failure = None
        if (spec.timeouts, spec.restarts) != (before.timeouts, before.restarts):
            for place in tenant.places.values():
                self._roster.adopt(place.name, spec.timeouts, spec.restarts)
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
        tenant.failure = None
        self._unsettled[name] = None
        self._step(ROUTER, lifecycle.StartRequested(), now)
        for place in tenant.members:
            self._start(tenant, place, now)

    def _restart(self, name: TenantName) -> None:
        tenant = self.tenants.get(name)
        if tenant is not None and tenant.phase is Phase.SERVING:
            tenant.round += 1
            tenant.failure = None
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
            self._replace(tenant, now)
        elif tenant.is_emptied and all(
            self.children[place.name].state is State.STOPPED for place in tenant.places.values()
        ):
            if tenant.phase is Phase.REMOVING:
                self._vanish(tenant)
                return
            tenant.phase = Phase.DRAINED
        availability = judge_availability(tenant, [self.children[name] for name in tenant.hopes])
        if availability != tenant.availability:
            tenant.availability = availability
            self._effects += briefing.availability(tenant, now)
        if not tenant.is_gate_told:
            self._tell_gate(tenant)

    def _settle_places(self, tenant: Tenant, now: float) -> None:
        """Have as many members as are wanted, and each place up or down as its role and the tenant's phase say."""
        if tenant.phase is not Phase.SERVING and tenant.successor is not None:
            # A tenant that drains is not replaced: what is outdated is made good when it serves again.
            tenant.successor.role = Role.SURPLUS
        while len(tenant.members) < tenant.spec.replicas:
            self._add_member(tenant)
        for place in replacement.surplus(tenant, self.children):
            place.role = Role.SURPLUS
        for replica, place in list(tenant.places.items()):
            if place.is_leaving and self.children[place.name].state is State.STOPPED:
                self._forget_place(tenant, replica)
        for place in list(tenant.places.values()):
            child = self.children[place.name]
            if tenant.needs_workers and not place.is_leaving:
                if child.desired is Desired.DOWN:
                    self._start(tenant, place, now)
            elif child.desired is Desired.UP:
                wish = lifecycle.DrainRequested() if tenant.needs_workers else lifecycle.StopRequested()
                self._step(place.name, wish, now)

    def _replace(self, tenant: Tenant, now: float) -> None:
        """Bring outdated workers up to date in the way that the configuration wants, one at a time."""
        if not tenant.outdated:
            tenant.failure = None
        if tenant.successor is not None:
            self._await_successor(tenant, tenant.successor, now)
        elif tenant.failure is None:
            for place in tenant.outdated:
                if replacement.can_restart_at_once(tenant, place, self.children):
                    self._renew(tenant, place, now)
            if tenant.outdated and not replacement.is_held_up(tenant, self.children):
                self._replace_next(tenant, now)

    def _replace_next(self, tenant: Tenant, now: float) -> None:
        """Begin with the next outdated worker that serves. Whoever bounds how many load at a time asks here."""
        if tenant.spec.replacement is Replacement.STOP_FIRST:
            self._renew(tenant, tenant.outdated[0], now)
        else:
            self._start(tenant, self._add_place(tenant, Role.SUCCESSOR), now)

    def _await_successor(self, tenant: Tenant, successor: Place, now: float) -> None:
        """Let it take over when it is ready, and give it up when it cannot become so."""
        child = self.children[successor.name]
        if not tenant.outdated or (
            tenant.spec.replacement is Replacement.STOP_FIRST and child.state is not State.READY
        ):
            successor.role = Role.SURPLUS
        elif child.state is State.READY:
            former = replacement.to_be_relieved(tenant, self.children)
            successor.role, former.role = Role.MEMBER, Role.REPLACED
            self._roster.succeed(successor.name, former.name)
        elif successor.target != tenant.target:
            self._renew(tenant, successor, now)
        elif child.state is State.STUCK and child.restarting:
            # The process that the kernel keeps is of a former version: the present one is tried in another place.
            successor.role = Role.SURPLUS
        elif (failure := replacement.failure(successor, self.children, now)) is not None:
            tenant.failure = failure
            successor.role = Role.SURPLUS
        else:
            return
        self._unsettled[tenant.spec.name] = None

    def _start(self, tenant: Tenant, place: Place, now: float) -> None:
        """Have a worker run; what does not try to any more comes back as what is wanted now."""
        child = self.children[place.name]
        if child.desired is Desired.DOWN or child.state is State.QUARANTINED:
            self._aim(tenant, place)
        self._step(place.name, lifecycle.StartRequested(), now)

    def _renew(self, tenant: Tenant, place: Place, now: float) -> None:
        """Start a worker anew where it is, for what is wanted now; one that serves finishes what it holds first."""
        self._aim(tenant, place)
        self._step(place.name, lifecycle.RestartRequested(), now)

    def _aim(self, tenant: Tenant, place: Place) -> None:
        """Let a place's next life be what is wanted now, which has yet to prove itself."""
        if place.target != tenant.target:
            place.target = tenant.target
            place.has_served = False

    def _add_member(self, tenant: Tenant) -> None:
        """One more member: a place that is about to be given up, where there is one, or else a new one."""
        for place in tenant.places.values():
            if place.is_leaving and self.children[place.name].state is not State.STUCK:
                place.role = Role.MEMBER
                return
        self._add_place(tenant, Role.MEMBER)

    def _add_place(self, tenant: Tenant, role: Role) -> Place:
        """A place with the lowest number that is free."""
        replica = next(number for number in itertools.count() if number not in tenant.places)
        key = WorkerKey(tenant.spec.name, replica)
        name = worker_name(key)
        above = tenant.last_generation
        if role is Role.SUCCESSOR:
            # Clients that compare generations see that its answers are newer than those of the workers that are there.
            above = max(above, *(self.children[place.name].generation for place in tenant.places.values()))
        self._roster.add(name, key, tenant.spec.timeouts, tenant.spec.restarts, above=above)
        tenant.places[replica] = place = Place(name, tenant.target, role)
        return place

    def _forget_place(self, tenant: Tenant, replica: int) -> None:
        name = tenant.places.pop(replica).name
        tenant.last_generation = max(tenant.last_generation, self.children[name].generation)
        self._roster.forget(name)

    def _vanish(self, tenant: Tenant) -> None:
        for replica in list(tenant.places):
            self._forget_place(tenant, replica)
        self._last_generation = max(self._last_generation, tenant.last_generation)
        del self.tenants[tenant.spec.name]
        self._effects.append(ForgetTenant(tenant.spec.name))

    def check(self) -> None:
        """Compare the fleet with what must always be true between two events.

        Raises:
            AssertionError: it is not; the text says what and where.
        """
        for child in self.children.values():
            lifecycle.check(child)
        next_deadline = self._roster.next_deadline()
        broken = list(broken_promises(self.children, self.tenants, next_deadline, is_stopping=self.is_stopping))
        broken += self._starts.broken_promises(self.children)
        if broken:
            raise AssertionError("; ".join(broken))
