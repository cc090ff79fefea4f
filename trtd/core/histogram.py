"""Durations counted in fixed buckets, spaced evenly in the logarithm, from 10 microseconds to 100 seconds.

All processes share the bounds, so buckets travel as bare counts (`trtd.wire.control.TenantStats`) and add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, repeat

_LOWEST_S = 1e-5
_DECADES = 7
_STEPS = 62

BOUNDS_S: tuple[float, ...] = tuple(
    float(f"{_LOWEST_S * 10 ** (_DECADES * step / _STEPS):.3g}") for step in range(_STEPS + 1)
)
"""Upper bounds of all buckets but the last, which has none. A duration equal to a bound counts below it."""

BUCKET_COUNT = len(BOUNDS_S) + 1


MAX_UNSORTED = 512
"""Durations that are kept as they came, so that many are sorted into buckets at once."""


class Histogram:
    """How many durations fell into each bucket, and their sum.

    Attributes:
        observe: call it with each duration in seconds; a negative one (clocks of two processes) counts as zero. It is
            no more than the append of a list: who observes many calls `tidy` now and then.
    """

    __slots__ = ("_counts", "_sum_s", "_unsorted", "observe")

    def __init__(self) -> None:
        self._counts = [0] * BUCKET_COUNT
        self._sum_s = 0.0
        self._unsorted: list[float] = []
        self.observe: Callable[[float], None] = self._unsorted.append

    def tidy(self) -> None:
        """Keep no more than MAX_UNSORTED durations as they came."""
        if len(self._unsorted) > MAX_UNSORTED:
            self._sort()

    def _sort(self) -> None:
        unsorted = self._unsorted
        for bucket, count in Counter(map(bisect_left, repeat(BOUNDS_S), unsorted)).items():
            self._counts[bucket] += count
        self._sum_s += sum(map(max, unsorted, repeat(0.0)))
        unsorted.clear()

    @property
    def sum_s(self) -> float:
        """All durations together."""
        self._sort()
        return self._sum_s

    @property
    def buckets(self) -> tuple[int, ...]:
        """Cumulative counts: the n-th is the number of durations up to the n-th bound, the last is all of them."""
        self._sort()
        return tuple(accumulate(self._counts))

    @property
    def count(self) -> int:
        """How many durations were observed."""
        self._sort()
        return sum(self._counts)


def quantile(buckets: Sequence[int], q: float) -> float | None:
    """The duration below which the part `q` (0 to 1) of the observations lies, interpolated inside its bucket.

    Args:
        buckets: cumulative counts, as `Histogram.buckets` gives them.
        q: which part; 0.99 for the 99th percentile.

    Returns:
        Seconds, or None without any observation. Beyond the last bound it is the last bound.
    """
    if len(buckets) != BUCKET_COUNT:
        raise ValueError(f"a histogram has {BUCKET_COUNT} buckets, not {len(buckets)}")
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    if buckets[-1] == 0:
        return None
    rank = q * buckets[-1]
    index = next(i for i, below in enumerate(buckets) if below >= rank and below > 0)
    if index == len(BOUNDS_S):
        return BOUNDS_S[-1]
    lower_s = BOUNDS_S[index - 1] if index else 0.0
    before = buckets[index - 1] if index else 0
    return lower_s + (BOUNDS_S[index] - lower_s) * max(0.0, rank - before) / (buckets[index] - before)
