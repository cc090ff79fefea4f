"""Bugs to plant in the core, each a mistake that somebody could make; the simulator has to notice every one.

Planting wraps public methods of the real classes, so that a bug stays what it is however the inside is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

from trtd.core import fleet, lifecycle
from trtd.core.dispatch import AnnounceTenantEmpty, Deliver, Dispatch, Dispatcher, Refuse
from trtd.core.faults import Fault, FaultDomain
from trtd.core.fleet import Fleet
from trtd.core.patience import OwnTime, Patience
from trtd.errors import Blame, ErrorCode

Planting = Callable[[], AbstractContextManager[Any]]


def _wrap(owner: type, method: str, make: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    return mock.patch.object(owner, method, make(getattr(owner, method)))


def lease_not_released() -> AbstractContextManager[Any]:
    """A typed refusal of a worker answers the client and leaves the lease behind."""

    def make(real: Any) -> Any:
        def complete(self: Dispatcher, worker: Any, results: Any, now: float) -> None:
            real(self, worker, [result for result in results if result[1] is not ErrorCode.DEADLINE_EXCEEDED], now)

        return complete

    return _wrap(Dispatcher, "complete", make)


def stale_generation_accepted() -> AbstractContextManager[Any]:
    """An answer of a worker that was revoked still reaches the client."""

    def make(real: Any) -> Any:
        def complete(self: Dispatcher, worker: Any, results: Any, now: float) -> None:
            held = getattr(self, "planted_leases", {})
            real(self, worker, results, now)
            for lease, _, frames in results:
                request = held.pop(lease, None)
                if request is not None and not request.is_answered:
                    self.planted.append(Deliver(request, frames))  # type: ignore[attr-defined]

        return complete

    def make_take(real: Any) -> Any:
        def take_effects(self: Dispatcher) -> Any:
            if not hasattr(self, "planted"):
                self.planted, self.planted_leases = [], {}  # type: ignore[attr-defined]
            effects = real(self) + self.planted  # type: ignore[attr-defined]
            self.planted = []  # type: ignore[attr-defined]
            for effect in effects:
                if isinstance(effect, Dispatch):
                    self.planted_leases.update(effect.requests)  # type: ignore[attr-defined]
            return effects

        return take_effects

    return _Both(_wrap(Dispatcher, "complete", make), _wrap(Dispatcher, "take_effects", make_take))


class _Both:
    """Two plantings as one."""

    def __init__(self, *parts: AbstractContextManager[Any]) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        for part in self._parts:
            part.__enter__()

    def __exit__(self, *reason: object) -> None:
        for part in self._parts:
            part.__exit__(*reason)  # type: ignore[arg-type]


def drain_forgets_the_queue() -> AbstractContextManager[Any]:
    """Closing the gate calls a tenant empty when no worker holds a request, whatever waits."""

    def make(real: Any) -> Any:
        def set_gate(self: Dispatcher, tenant: Any, is_open: bool, now: float) -> None:
            real(self, tenant, is_open, now)
            if not is_open and self.tenant(tenant).queued and not self.tenant(tenant).leased:
                self._ledger.effects.append(AnnounceTenantEmpty(tenant))

        return set_gate

    return _wrap(Dispatcher, "set_gate", make)


def leases_not_revoked() -> AbstractContextManager[Any]:
    """The supervisor replaces a dead worker and does not tell the router."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            return [effect for effect in real(self, event, now) if not isinstance(effect, fleet.RevokeWorker)]

        return handle

    return _wrap(Fleet, "handle", make)


def resend_taken_for_new() -> AbstractContextManager[Any]:
    """A request that was sent again is accepted as another one."""

    def make(real: Any) -> Any:
        def submit(self: Dispatcher, request: Any, now: float) -> None:
            if request.is_resent:
                request.id = bytes([255]) + request.id[1:]
            real(self, request, now)

        return submit

    return _wrap(Dispatcher, "submit", make)


def deadlines_only_on_traffic() -> AbstractContextManager[Any]:
    """Nobody is woken for a deadline: it is answered when something else happens to come by."""
    return mock.patch.object(Dispatcher, "next_deadline", return_value=None)


def router_not_told_again() -> AbstractContextManager[Any]:
    """A restarted router hears of no worker that is already there."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            effects = real(self, event, now)
            match event:
                case fleet.ChildEvent(fleet.ROUTER, lifecycle.BecameReady()):
                    return [effect for effect in effects if not isinstance(effect, fleet.AdmitWorker)]
            return effects

        return handle

    return _wrap(Fleet, "handle", make)


def hang_not_watched() -> AbstractContextManager[Any]:
    """Beats count as progress, so a batch that never returns is never noticed."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            match event:
                case fleet.ChildEvent(name, lifecycle.Beat(generation, _, _)):
                    event = fleet.ChildEvent(name, lifecycle.Beat(generation, 0, 0))
            return real(self, event, now)

        return handle

    return _wrap(Fleet, "handle", make)


def neighbour_restarted() -> AbstractContextManager[Any]:
    """A death in one tenant restarts the others' workers as well."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            effects = real(self, event, now)
            match event:
                case fleet.ChildEvent(name, lifecycle.Exited()) if name != fleet.ROUTER:
                    for tenant in list(self.tenants):
                        effects += real(self, fleet.TenantRestartRequested(tenant), now)
            return effects

        return handle

    return _wrap(Fleet, "handle", make)


def refused_twice() -> AbstractContextManager[Any]:
    """An expired request is answered again when its worker dies."""

    def make(real: Any) -> Any:
        def take_effects(self: Dispatcher) -> Any:
            effects = real(self)
            late = [e for e in effects if isinstance(e, Refuse) and e.code is ErrorCode.DEADLINE_EXCEEDED]
            return effects + [Refuse(e.request, ErrorCode.WORKER_LOST, "again", None) for e in late]

        return take_effects

    return _wrap(Dispatcher, "take_effects", make)


def closed_too_early() -> AbstractContextManager[Any]:
    """A restart closes the workers at once, as if their successors were there."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            effects = real(self, event, now)
            match event:
                case fleet.TenantRestartRequested(tenant) if tenant in self.tenants:
                    for place in self.tenants[tenant].outdated:
                        effects += real(self, fleet.ChildEvent(place.name, lifecycle.RestartRequested()), now)
            return effects

        return handle

    return _wrap(Fleet, "handle", make)


def failed_successor_counts() -> AbstractContextManager[Any]:
    """A successor that cannot start makes its tenant unavailable, as the last worker of a tenant does."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            had_failed = {name for name, tenant in self.tenants.items() if tenant.failure is not None}
            effects = real(self, event, now)
            for name, tenant in self.tenants.items():
                if tenant.failure is not None and name not in had_failed:
                    effects.append(
                        fleet.SetAvailability(name, False, str(tenant.failure), None, "its replacement failed")
                    )
            return effects

        return handle

    return _wrap(Fleet, "handle", make)


def failed_successor_tried_for_ever() -> AbstractContextManager[Any]:
    """A replacement that failed is begun again, though nobody asks for it."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            effects = real(self, event, now)
            if isinstance(event, fleet.TimePassed):
                for name, tenant in list(self.tenants.items()):
                    if tenant.failure is not None:
                        effects += real(self, fleet.ResumeRequested(name), now)
            return effects

        return handle

    return _wrap(Fleet, "handle", make)


def own_pause_not_discounted() -> AbstractContextManager[Any]:
    """The supervisor takes the time in which it stood still for silence of the others."""
    return mock.patch.object(OwnTime, "read", lambda _self, now: now)


def nobody_excused() -> AbstractContextManager[Any]:
    """A process that is stopped, or gets no processor, is judged like one that hangs."""
    return mock.patch.object(Patience, "excuse", lambda self, *_: self)


def everybody_excused() -> AbstractContextManager[Any]:
    """Each look at a silent process begins the patience with it anew."""
    return mock.patch.object(Patience, "excuse", lambda self, _before, _after, _at, now: self._replace(since=now))


def device_faults_convict() -> AbstractContextManager[Any]:
    """What a fault was is lost on its way to the router: a death by an ill device looks like any other."""

    def make(real: Any) -> Any:
        def revoke_worker(self: Dispatcher, worker: Any, fault: Fault, now: float) -> None:
            if fault.blame is Blame.DEVICE:
                fault = replace(fault, blame=Blame.TENANT, domain=FaultDomain.PROCESS, code=700)
            real(self, worker, fault, now)

        return revoke_worker

    return _wrap(Dispatcher, "revoke_worker", make)


def convicted_deaths_are_charged() -> AbstractContextManager[Any]:
    """The supervisor does not listen when the router says whose input ended a worker."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            if isinstance(event, fleet.ChildEvent) and isinstance(event.event, lifecycle.DeathExcused):
                return []
            return real(self, event, now)

        return handle

    return _wrap(Fleet, "handle", make)


def rest_is_not_known() -> AbstractContextManager[Any]:
    """A worker that rests is expected to speak as often as one that works."""

    def make(real: Any) -> Any:
        def handle(self: Fleet, event: Any, now: float) -> Any:
            match event:
                case fleet.ChildEvent(name, lifecycle.Beat(generation, progress, in_flight)):
                    event = fleet.ChildEvent(name, lifecycle.Beat(generation, progress, in_flight))
            return real(self, event, now)

        return handle

    return _wrap(Fleet, "handle", make)


BUGS: dict[str, Planting] = {
    "a lease is not released": lease_not_released,
    "a stale generation is accepted": stale_generation_accepted,
    "a drain forgets the queue": drain_forgets_the_queue,
    "leases are not revoked": leases_not_revoked,
    "a resend is taken for a new request": resend_taken_for_new,
    "deadlines are kept only on traffic": deadlines_only_on_traffic,
    "a restarted router is not told of workers": router_not_told_again,
    "a hang is not watched": hang_not_watched,
    "a death restarts the neighbours": neighbour_restarted,
    "an expired request is answered twice": refused_twice,
    "two device faults convict an innocent": device_faults_convict,
    "convicted deaths are charged": convicted_deaths_are_charged,
    "a worker is closed before its successor is ready": closed_too_early,
    "a successor that fails makes its tenant unavailable": failed_successor_counts,
    "a successor that fails is tried for ever": failed_successor_tried_for_ever,
    "an own pause is taken for the others' silence": own_pause_not_discounted,
    "a stop is taken for a hang": nobody_excused,
    "a hang is excused for ever": everybody_excused,
    "a rest is taken for silence": rest_is_not_known,
}
