"""What must be true of a fleet between any two events; the simulator and the tests ask after each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trtd.core.fleet import replacement
from trtd.core.fleet.tenant import Role, Tenant, judge_availability
from trtd.core.fleet.vocabulary import ROUTER, Phase, Replacement
from trtd.core.ids import TenantName
from trtd.core.lifecycle import Child, Desired, State


def broken_promises(
    children: Mapping[str, Child],
    tenants: Mapping[TenantName, Tenant],
    next_deadline: float | None,
    *,
    is_stopping: bool,
) -> Iterator[str]:
    """A line for each promise that does not hold. The children's own ones are checked by `lifecycle.check`."""
    earliest = min((child.deadline for child in children.values() if child.deadline is not None), default=None)
    if next_deadline != earliest:
        yield f"the next deadline is {earliest}, not {next_deadline}"
    places = {name for tenant in tenants.values() for name in tenant.workers.values()}
    if places | {ROUTER} != set(children):
        yield f"children {sorted(children)} do not fill the places {sorted(places)}"
    for name, tenant in tenants.items():
        yield from (f"tenant {name}: {broken}" for broken in _broken_by_tenant(tenant, children, is_stopping))


def _broken_by_tenant(tenant: Tenant, children: Mapping[str, Child], is_stopping: bool) -> Iterator[str]:
    if tenant.phase is Phase.SERVING and (tenant.is_emptied or is_stopping):
        yield "it serves though it is emptied or the fleet is stopping"
    if not tenant.is_gate_told:
        yield "the router was not told of its gate"
    yield from _broken_by_places(tenant, children)
    judged = judge_availability(tenant, [children[worker] for worker in tenant.hopes])
    if judged != tenant.availability:
        yield f"the router was told {tenant.availability}, true is {judged}"


def _broken_by_places(tenant: Tenant, children: Mapping[str, Child]) -> Iterator[str]:
    if len(tenant.members) != tenant.spec.replicas:
        yield f"{len(tenant.members)} workers are members, {tenant.spec.replicas} are wanted"
    for place in tenant.places.values():
        child = children[place.name]
        is_wanted = tenant.needs_workers and not place.is_leaving
        if (child.desired is Desired.UP) != is_wanted:
            yield f"worker {place.name} is {place.role} and wanted {child.desired}"
        if tenant.phase is Phase.DRAINED and child.state is not State.STOPPED:
            yield f"it is drained though worker {place.name} is {child.state}"
        if place.is_leaving and child.state is State.STOPPED:
            yield f"worker {place.name} is gone and not forgotten"
    yield from _broken_by_replacement(tenant, children)


def _broken_by_replacement(tenant: Tenant, children: Mapping[str, Child]) -> Iterator[str]:
    successors = [place for place in tenant.places.values() if place.role is Role.SUCCESSOR]
    for place in successors:
        if children[place.name].state is State.READY or place.target != tenant.target:
            yield f"successor {place.name} is {children[place.name].state} for {place.target} and did not take over"
    if successors and (
        tenant.phase is not Phase.SERVING
        or tenant.failure is not None
        or tenant.spec.replacement is Replacement.STOP_FIRST
        or not tenant.outdated
    ):
        yield f"successor {successors[0].name} replaces nobody"
    if tenant.phase is Phase.SERVING and tenant.failure is not None and not tenant.outdated:
        yield f"nobody is outdated, and it has failed to replace: {tenant.failure}"
    # One worker more than wanted, never two; what the kernel does not let go of is not ours to count.
    if len(successors) > 1 or (successors and _leave(tenant, children)):
        yield f"more than one worker is more than wanted: {sorted(tenant.workers.values())}"
    if replacement.is_neglected(tenant, children):
        yield f"workers {[place.name for place in tenant.outdated]} are outdated, and nothing is done about it"


def _leave(tenant: Tenant, children: Mapping[str, Child]) -> list[str]:
    """Workers that a replacement leaves behind and that will be gone by themselves.

    Those that go because fewer are wanted now may do so beside it: they were there before, and nothing was started for
    them.
    """
    return [
        place.name
        for place in tenant.places.values()
        if place.is_leaving
        and (place.role is Role.REPLACED or not place.has_served)
        and children[place.name].state is not State.STUCK
    ]
