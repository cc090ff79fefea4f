"""What the metrics are made of, as plain numbers; `trtd.health.exposition` gives them their names.

Tenants and their models bound its size; nothing in it names a request or a client.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtd.supervisor.facts import Facts, TenantFacts
from trtd.wire.health import EVERY_NTH_BOUND, Duration, Metrics, TenantMetrics
from trtd.wire.status import Status


def make_metrics(status: Status, facts: Facts) -> Metrics:
    """The numbers at the instant of the status record.

    Args:
        status: of all tenants.
        facts: the same that the record was made from.
    """
    return Metrics(status=status, tenants=[_tenant(name, seen) for name, seen in sorted(facts.tenants.items())])


def _tenant(name: str, seen: TenantFacts) -> TenantMetrics:
    totals, recoveries = seen.totals, seen.recoveries
    return TenantMetrics(
        name=name,
        outcomes=[(model, outcome, count) for (model, outcome), count in sorted(totals.outcomes.items())],
        restarts=[(reason, blame, count) for (reason, blame), count in sorted(seen.restarts.items())],
        duration=_duration(totals.duration_buckets, totals.duration_sum_s),
        queue=_duration(totals.queue_buckets, totals.queue_sum_s),
        recovery=_duration(recoveries.buckets, recoveries.sum_s),
    )


def _duration(cumulative: Sequence[int], sum_s: float) -> Duration:
    return Duration(buckets=[*cumulative[:-1:EVERY_NTH_BOUND], cumulative[-1]], sum_s=sum_s)
