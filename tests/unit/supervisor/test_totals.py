"""Counters over the lives of the router, and the last minute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.core.histogram import Histogram
from trtd.supervisor.totals import COUNTERS, TenantTotals
from trtd.wire.control import TenantStats


def make_stats(durations: tuple[float, ...] = (), **changes: Any) -> TenantStats:
    """Numbers of a router that answered requests in so many seconds."""
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    count = len(durations)
    zeros = dict.fromkeys(("queued", "leased", "held_bytes", *COUNTERS), 0)
    stats = TenantStats(
        tenant="a",
        **zeros,
        outcomes=(("m", "ok", count),),
        duration_buckets=histogram.buckets,
        duration_sum_s=histogram.sum_s,
        queue_buckets=histogram.buckets,
        queue_sum_s=histogram.sum_s,
    )
    return replace(stats, **{"accepted": count, "answered": count, **changes})


def test_counters_go_on_over_a_new_router():
    """What a former router counted is kept, what it held is counted as abandoned, and the identity holds."""
    totals = TenantTotals(0.0)
    totals.take(1, make_stats((0.1,) * 5, accepted=8, answered=5, queued=2, leased=1, held_bytes=10), 1.0)
    assert (totals.queued, totals.leased, totals.held_bytes) == (2, 1, 10)
    totals.take(2, make_stats((0.2,) * 3), 2.0)
    counters = totals.counters
    assert (counters["accepted"], counters["answered"], counters["abandoned"], totals.queued) == (11, 8, 3, 0)
    assert counters["accepted"] == counters["answered"] + counters["failed"] + counters["abandoned"]
    assert totals.outcomes == {("m", "ok"): 8}
    assert totals.duration_buckets[-1] == totals.queue_buckets[-1] == 8
    assert totals.duration_sum_s == pytest.approx(1.1)


def test_a_lost_router_holds_nothing():
    """From the moment of the router's death its requests are abandoned, once, and nothing is queued."""
    totals = TenantTotals(0.0)
    totals.take(1, make_stats(accepted=3, queued=2, leased=1), 1.0)
    totals.router_lost()
    totals.router_lost()
    assert (totals.queued, totals.leased, totals.counters["abandoned"]) == (0, 0, 3)
    totals.take(2, make_stats(accepted=1, queued=1), 2.0)
    assert (totals.counters["accepted"], totals.counters["abandoned"]) == (4, 3)


def test_a_former_router_is_not_heard():
    """Numbers of an older generation, coming late, change nothing."""
    totals = TenantTotals(0.0)
    totals.take(2, make_stats((0.1,)), 1.0)
    totals.take(1, make_stats((0.1,) * 100), 2.0)
    assert totals.counters["accepted"] == 1


def test_the_last_minute_forgets_what_is_older():
    """Rate and quantiles tell of the last minute only, also when it began in the middle of a router's life."""
    totals = TenantTotals(0.0)
    slow = (1.0,) * 100
    totals.take(1, make_stats(slow), 1.0)
    assert totals.recent(1.0).p50_s == pytest.approx(1.0, rel=0.3)
    totals.take(1, make_stats(slow), 60.0)
    totals.take(1, make_stats(slow + (0.001,) * 120), 100.0)
    recent = totals.recent(100.0)
    assert recent.p99_s == pytest.approx(0.001, rel=0.3)
    assert recent.per_s == pytest.approx(120 / 40)
    assert totals.recent(1000.0).per_s == 0.0


def test_without_answers_there_is_nothing_to_tell():
    """A tenant that answered nothing has a rate of 0 and no quantiles."""
    recent = TenantTotals(0.0).recent(5.0)
    assert (recent.per_s, recent.p50_s, recent.p99_s) == (0.0, None, None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=30))
def test_the_identity_holds_over_any_number_of_routers(steps):
    """Accepted = answered + failed + abandoned + queued + leased, whenever routers die."""
    totals = TenantTotals(0.0)
    generation, accepted, answered = 1, 0, 0
    for number, (more, done, dies) in enumerate(steps):
        accepted += more
        answered = min(accepted, answered + done)
        totals.take(generation, make_stats(accepted=accepted, answered=answered, queued=accepted - answered), number)
        if dies:
            totals.router_lost()
            generation, accepted, answered = generation + 1, 0, 0
        counters = totals.counters
        held = totals.queued + totals.leased
        assert counters["accepted"] == counters["answered"] + counters["failed"] + counters["abandoned"] + held
