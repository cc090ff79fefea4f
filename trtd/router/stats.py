"""A tenant's numbers as the supervisor gets them: what the core counted, and what the endpoint knows beside it."""

from __future__ import annotations

from trtd.core.tenancy import Tenant
from trtd.router.endpoints import Endpoint
from trtd.wire.control import MAX_BARRED_TOLD, TenantStats
from trtd.wire.headers import one_line


def snapshot(tenant: Tenant, endpoint: Endpoint, now: float) -> TenantStats:
    """The numbers of this instant."""
    barred = tenant.offenders.barred(now)[:MAX_BARRED_TOLD]
    counters = tenant.counters
    return TenantStats(
        tenant=tenant.name,
        queued=tenant.queued,
        leased=tenant.leased,
        held_bytes=tenant.held_bytes,
        accepted=counters.accepted,
        answered=counters.answered,
        failed=counters.failed,
        refused=counters.refused,
        resent=counters.resent,
        replayed=counters.replayed,
        expired=counters.expired,
        stale=counters.stale,
        outcomes=tuple((model, str(outcome), count) for (model, outcome), count in tenant.outcomes.items()),
        duration_buckets=tenant.durations.buckets,
        duration_sum_s=tenant.durations.sum_s,
        queue_buckets=tenant.queue_times.buckets,
        queue_sum_s=tenant.queue_times.sum_s,
        undeliverable=endpoint.undeliverable,
        arena_bytes=endpoint.arenas.book.held_bytes,
        arena_count=endpoint.arenas.book.count,
        connections=endpoint.connections,
        connections_refused=endpoint.connections_refused,
        unreachable=endpoint.unreachable,
        convicted=counters.convicted,
        poisons=len(tenant.poison),
        barred=tuple((one_line(str(one.owner)), one.until - now, one.deaths) for one in barred),
    )
