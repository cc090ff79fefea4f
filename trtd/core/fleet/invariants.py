"""What must be true of a fleet between any two events; the simulator and the tests ask after each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trtd.core.fleet.tenant import Tenant, judge_availability
from trtd.core.fleet.vocabulary import ROUTER, Phase
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
    if missing := set(range(tenant.spec.replicas)) - set(tenant.workers):
        yield f"replicas {sorted(missing)} have no place"
    for replica, worker in tenant.workers.items():
        child = children[worker]
        is_wanted = tenant.needs_workers and not tenant.is_surplus(replica)
        if (child.desired is Desired.UP) != is_wanted:
            yield f"worker {worker} is wanted {child.desired}"
        if tenant.phase is Phase.DRAINED and child.state is not State.STOPPED:
            yield f"it is drained though worker {worker} is {child.state}"
    judged = judge_availability(tenant, [children[worker] for worker in tenant.active])
    if judged != tenant.availability:
        yield f"the router was told {tenant.availability}, true is {judged}"
