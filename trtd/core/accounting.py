"""Is every request where it belongs? One tenant's invariants, recomputed from nothing but its collections.

Slow on purpose, and used by tests and the simulator after each event (`Dispatcher.check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from trtd.core.requests import Request
from trtd.core.tenancy import Gate, Tenant


def check_tenant(tenant: Tenant, awaited: Set[int], is_active: bool) -> None:
    """Verify one tenant.

    Args:
        tenant: whose.
        awaited: `id()` of every request whose deadline is watched, and of every tenant that comes up by itself.
        is_active: whether the tenant takes part in the turns.

    Raises:
        AssertionError: an invariant does not hold; the text names the tenant and the invariant.
    """
    _check_identity(tenant)
    _check_places(tenant, awaited)
    _check_workers(tenant)
    _check_announcements(tenant)
    _require(
        is_active or not (_can_serve_queue(tenant, awaited) or _can_serve_lane(tenant)),
        tenant,
        "a tenant that can go on is looked at",
    )


def _can_serve_queue(tenant: Tenant, awaited: Set[int]) -> bool:
    """Whether something waits that a worker has room for, and nobody will come back to it."""
    room = tenant.limits.max_outstanding
    has_room = any(len(holder.leases) < room for holder in tenant.candidates())
    return len(tenant.queue) > 0 and has_room and id(tenant) not in awaited


def _can_serve_lane(tenant: Tenant) -> bool:
    """Whether the lane's worker can be given the next group, or be let go because there is none."""
    holder = tenant.lane_holder
    if holder is None or any(request.is_suspect for request in holder.leases.values()):
        return False
    return not tenant.lane or not holder.leases


def _check_identity(tenant: Tenant) -> None:
    counters = tenant.counters
    in_flight = tenant.queued + tenant.leased
    _require(
        counters.accepted == counters.answered + counters.failed + in_flight,
        tenant,
        f"accepted = answered + failed + in flight: {counters}, {in_flight} in flight",
    )
    _require(
        tenant.durations.count == counters.answered + counters.failed,
        tenant,
        "each answered request has one duration",
    )
    _require(
        sum(tenant.outcomes.values()) == counters.answered + counters.failed + counters.refused,
        tenant,
        "each answer and each refusal has one outcome",
    )


def _check_places(tenant: Tenant, awaited: Set[int]) -> None:
    waiting = [*tenant.queue, *tenant.lane]
    leased = [request for holder in tenant.holders.values() for request in holder.leases.values()]
    places = Counter(id(request) for request in [*waiting, *leased])
    _require(max(places.values(), default=1) == 1, tenant, "a request is in one place only")
    _require(tenant.queued == len(waiting), tenant, "the queue and the lane know their lengths")
    _require(not any(request.is_answered for request in waiting), tenant, "what waits is not answered")
    _require(not any(request.lease is not None for request in waiting), tenant, "what waits has no lease")
    _require(all(request.is_suspect for request in tenant.lane), tenant, "the lane holds suspects")
    _require(not any(request.is_suspect for request in tenant.queue), tenant, "the queue holds no suspects")
    unanswered = {id(request) for request in [*waiting, *leased] if not request.is_answered}
    _require(
        unanswered == {id(request) for request in tenant.requests.values()},
        tenant,
        "each accepted request without an answer is queued, suspect or leased",
    )
    _require(unanswered <= awaited, tenant, "every deadline is watched")
    _require(
        tenant.held_bytes == sum(request.payload_bytes for request in [*waiting, *leased]),
        tenant,
        "held bytes are those of all that is queued or leased",
    )
    for request in [*waiting, *leased]:
        _check_request(tenant, request)


def _check_request(tenant: Tenant, request: Request) -> None:
    _require(request.tenant == tenant.name, tenant, "a tenant holds its own requests only")
    _require(
        request.is_answered or tenant.requests.get(request.id) is request,
        tenant,
        "a request is found by its id",
    )
    _require(request.attempts <= tenant.limits.max_attempts, tenant, "attempts are bounded")


def _check_workers(tenant: Tenant) -> None:
    holders = list(tenant.holders.values())
    for worker, holder in tenant.holders.items():
        _require(worker == holder.id and worker.tenant == tenant.name, tenant, "a worker is found by its id")
        _require(
            all(request.lease == lease for lease, request in holder.leases.items()), tenant, "a lease is on both sides"
        )
        _require(
            len({request.is_suspect for request in holder.leases.values()}) <= 1,
            tenant,
            "a worker holds suspects or innocents, never both",
        )
    leases = [lease for holder in holders for lease in holder.leases]
    _require(len(leases) == len(set(leases)), tenant, "a lease belongs to one worker")
    _require(
        tenant.lane_holder is None or tenant.lane_holder in holders, tenant, "the lane's worker is one of its workers"
    )


def _check_announcements(tenant: Tenant) -> None:
    if tenant.gate is Gate.CLOSED and not tenant.requests and not tenant.awaits_resends:
        _require(tenant.is_announced, tenant, "an empty tenant with a closed gate is announced")
    for holder in tenant.holders.values():
        if holder.is_closed and not holder.leases:
            _require(holder.is_announced, tenant, f"the empty closed worker {holder.id} is announced")


def _require(is_true: bool, tenant: Tenant, invariant: str) -> None:
    if not is_true:
        raise AssertionError(f"{tenant.name}: {invariant}")
