"""Who is to be replaced next, and who is to go: judged from a tenant's places and the children in them. The fleet acts.

A replacement on request starts the successor first. Only one runs at a time in a tenant, so there is one worker more
than wanted, never two, apart from what the kernel does not let go of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trtd.core.faults import Fault, FaultKind
from trtd.core.fleet.tenant import HOPELESS, MAX_REASON_LENGTH, Failure, Place, Tenant
from trtd.core.fleet.vocabulary import Phase, Replacement
from trtd.core.lifecycle import Child, State

MAX_TRIES = 3
"""Deaths of a successor that is not ready yet until it is given up; a fault that is permanent ends it at once."""

Children = Mapping[str, Child]


def failure(successor: Place, children: Children, now: float) -> Failure | None:
    """Why a successor is to be given up; None while it is not."""
    child = children[successor.name]
    if child.state not in HOPELESS and child.failures < MAX_TRIES:
        return None
    lost = Fault(FaultKind.STOP_TIMED_OUT, "was killed and is not gone")
    return Failure(successor.name, child.fault or child.last_fault or lost, now)


class Progress(NamedTuple):
    """How far a tenant is from what was wished of its workers.

    Attributes:
        left: names of workers that are outdated, not ready, or on their way out.
        failure: why it will not come to its end by itself, in one line; empty while it may.
    """

    left: tuple[str, ...]
    failure: str = ""


def progress(tenant: Tenant, children: Children) -> Progress:
    """What is left to do for a serving tenant, and whether that will be done."""
    outdated = tenant.outdated
    left = {place.name for place in outdated}
    failure = "" if tenant.failure is None else str(tenant.failure)
    if tenant.failure is not None and tenant.failure.fault.kind is FaultKind.OUT_OF_MEMORY:
        failure += f'; tenants.{tenant.spec.name}.replace = "stop-first" needs no memory for two'
    for place in tenant.places.values():
        child = children[place.name]
        if place.is_leaving:
            left |= {place.name} if child.state is not State.STUCK else set()
        elif child.state is not State.READY:
            left.add(place.name)
            if place.target == tenant.target and child.state in HOPELESS and not failure:
                cause = child.last_fault.message if child.last_fault else "no cause is known"
                failure = f"worker {place.name} is {child.state}: {' '.join(cause.split())}"[:MAX_REASON_LENGTH]
    if failure and outdated:
        serving = any(children[place.name].state is State.READY for place in outdated)
        end = "the old version serves" if serving else "the old version does not serve either"
        failure = f"{failure.rstrip('.')}; {end}"
    return Progress(tuple(sorted(left)), failure)


def to_be_relieved(tenant: Tenant, children: Children) -> Place:
    """The outdated member whose work a ready successor takes over: one that does not serve, if there is one."""
    return min(tenant.outdated, key=lambda place: children[place.name].state is State.READY)


def surplus(tenant: Tenant, children: Children) -> list[Place]:
    """Members that are more than the configuration asks for: those first that serve nobody, then the outdated ones."""

    def worth(place: Place) -> tuple[bool, bool, bool]:
        state = children[place.name].state
        return state is State.READY, state not in HOPELESS, place.target == tenant.target

    # Of equals the one with the highest number goes, because a sort leaves the order of equals alone.
    ranked = sorted(tenant.members, key=worth, reverse=True)
    return ranked[tenant.spec.replicas :]


def is_held_up(tenant: Tenant, children: Children) -> bool:
    """Whether the next replacement has to wait: one ends still, or a worker of the newest version is not ready.

    A version that does not serve well holds up the rest, so that it leaves the other workers alone. What the kernel
    does not let go of may never go, so nothing waits for that.
    """
    for place in tenant.places.values():
        state = children[place.name].state
        is_newest = not place.is_leaving and place.target == tenant.target
        if (place.is_leaving or (is_newest and state is not State.READY)) and state is not State.STUCK:
            return True
    return False


def can_restart_at_once(tenant: Tenant, place: Place, children: Children) -> bool:
    """Whether an outdated worker is started anew where it is, whatever becomes of the others.

    The successor first: when nothing is lost by it. Otherwise: when it is not serving anyhow.
    """
    if tenant.spec.replacement is Replacement.STOP_FIRST:
        return children[place.name].state is not State.READY
    return not place.has_served or children[place.name].state is State.QUARANTINED


def is_neglected(tenant: Tenant, children: Children) -> bool:
    """Whether workers are outdated and nothing is under way that changes it; never so between two events."""
    outdated = tenant.outdated
    if tenant.phase is not Phase.SERVING or not outdated or tenant.failure or tenant.successor:
        return False
    is_left = any(can_restart_at_once(tenant, place, children) for place in outdated)
    return is_left or not is_held_up(tenant, children)
