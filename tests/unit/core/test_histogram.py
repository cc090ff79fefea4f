"""Durations in fixed buckets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtd.core.histogram import BOUNDS_S, BUCKET_COUNT, MAX_UNSORTED, Histogram, quantile


def test_bounds_span_ten_microseconds_to_a_hundred_seconds():
    """The bounds grow evenly from 10 us to 100 s and make at most 64 buckets."""
    assert BOUNDS_S[0] == 1e-5
    assert BOUNDS_S[-1] == 100.0
    assert BUCKET_COUNT == len(BOUNDS_S) + 1 <= 64
    ratios = [high / low for low, high in pairwise(BOUNDS_S)]
    assert max(ratios) / min(ratios) < 1.02


def test_buckets_are_cumulative_and_a_bound_belongs_below():
    """A duration equal to a bound counts up to that bound, the last bucket counts all, and the sum is kept."""
    histogram = Histogram()
    for seconds in (BOUNDS_S[3], BOUNDS_S[3] * 1.0001, 1000.0):
        histogram.observe(seconds)
    assert histogram.buckets[2:5] == (0, 1, 2)
    assert histogram.buckets[-2:] == (2, 3)
    assert histogram.count == 3
    assert histogram.sum_s == pytest.approx(1000.0 + 2.0001 * BOUNDS_S[3])


def test_a_negative_duration_counts_as_none():
    """A duration below zero lands in the first bucket and leaves the sum alone."""
    histogram = Histogram()
    histogram.observe(-5.0)
    assert histogram.buckets[0] == 1
    assert histogram.sum_s == 0.0


def test_many_durations_are_sorted_in_as_they_come():
    """However many are observed, few are kept as they came, and every one is counted."""
    histogram = Histogram()
    for number in range(3 * MAX_UNSORTED):
        histogram.observe(BOUNDS_S[number % 10] if number % 2 else -1.0)
        histogram.tidy()
        assert len(histogram.observe.__self__) <= MAX_UNSORTED
    assert histogram.count == 3 * MAX_UNSORTED
    assert histogram.buckets[9] == 3 * MAX_UNSORTED
    assert histogram.sum_s == pytest.approx(sum(BOUNDS_S[number % 10] for number in range(1, 3 * MAX_UNSORTED, 2)))


def test_quantile_without_observations_is_none():
    """Nothing observed, nothing told."""
    assert quantile(Histogram().buckets, 0.5) is None


def test_quantile_interpolates_inside_its_bucket():
    """Four durations in one bucket put the median in the middle between its bounds."""
    histogram = Histogram()
    for _ in range(4):
        histogram.observe(BOUNDS_S[10])
    assert quantile(histogram.buckets, 0.5) == pytest.approx((BOUNDS_S[9] + BOUNDS_S[10]) / 2)
    assert quantile(histogram.buckets, 1.0) == pytest.approx(BOUNDS_S[10])


def test_quantile_beyond_the_last_bound_is_that_bound():
    """A duration longer than all bounds is told as the last bound."""
    histogram = Histogram()
    histogram.observe(500.0)
    assert quantile(histogram.buckets, 0.99) == BOUNDS_S[-1]


@pytest.mark.parametrize(("buckets", "q"), [((0, 1), 0.5), ((0,) * BUCKET_COUNT, 1.5)])
def test_quantile_refuses_what_is_no_histogram(buckets, q):
    """A wrong number of buckets, or a part that is none, is a ValueError."""
    with pytest.raises(ValueError, match=r"histogram|quantile"):
        quantile(buckets, q)


@settings(deadline=None)
@given(st.lists(st.floats(1e-5, 99.0), min_size=1), st.floats(0.0, 1.0))
def test_quantile_is_within_one_bucket_of_the_truth(durations, q):
    """The interpolated quantile lies in the bucket of the exact one."""
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    rank = max(1, -int(-q * len(durations) // 1))
    exact = sorted(durations)[rank - 1]
    ratio = BOUNDS_S[1] / BOUNDS_S[0] * 1.02
    told = quantile(histogram.buckets, q)
    assert told is not None
    assert exact / ratio <= max(told, 1e-5 / ratio) <= max(exact * ratio, 1e-5)
