"""The router's numbers for one tenant, added up over the lives of the router, and what happened in the last minute.

A router counts from its own start and tells its numbers about once a second; what it counted after the last telling
is lost with it. Requests that it held are counted as abandoned: their clients send them again, and the next router
accepts them anew. So `accepted == answered + failed + abandoned + queued + leased` holds for the totals too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from trtd.core.histogram import BUCKET_COUNT, quantile
from trtd.wire.control import TenantStats

COUNTERS = ("accepted", "answered", "failed", "refused", "resent", "replayed", "expired", "stale", "convicted")
REFUSED_CONNECTIONS = "connections_refused"

WINDOW_S = 60.0
SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened in the last minute.

    Attributes:
        p50_s: median time from receipt to answer; None without any answer.
        p99_s: its 99th percentile.
        per_s: answers per second.
    """

    p50_s: float | None
    p99_s: float | None
    per_s: float


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    duration: tuple[int, ...]


class TenantTotals:
    """One tenant's numbers since the daemon started."""

    def __init__(self, now: float) -> None:
        self.abandoned = 0
        self._generation = 0
        self._last: TenantStats | None = None
        self._past: Counter[str] = Counter()
        self._past_outcomes: Counter[tuple[str, str]] = Counter()
        self._past_duration = [0] * BUCKET_COUNT
        self._past_duration_sum_s = 0.0
        self._past_queue = [0] * BUCKET_COUNT
        self._past_queue_sum_s = 0.0
        self._samples = deque([_Sample(now, (0,) * BUCKET_COUNT)])

    def take(self, generation: int, stats: TenantStats, now: float) -> None:
        """Note what the router of this generation says; an older router's word, coming late, does not count."""
        if generation < self._generation:
            return
        if generation > self._generation:
            self.router_lost()
            self._generation = generation
        self._last = stats
        if now - self._samples[-1].at >= SAMPLE_EVERY_S:
            self._samples.append(_Sample(now, self.duration_buckets))
        while now - self._samples[0].at > WINDOW_S:
            self._samples.popleft()

    def router_lost(self) -> None:
        """Move the numbers of the present router to the past: it is gone, and what it held with it."""
        last = self._last
        if last is None:
            return
        self._last = None
        self.abandoned += last.queued + last.leased
        self._past.update({name: getattr(last, name) for name in (*COUNTERS, REFUSED_CONNECTIONS)})
        self._past_outcomes.update({(model, outcome): count for model, outcome, count in last.outcomes})
        self._past_duration = _sum(self._past_duration, last.duration_buckets)
        self._past_duration_sum_s += last.duration_sum_s
        self._past_queue = _sum(self._past_queue, last.queue_buckets)
        self._past_queue_sum_s += last.queue_sum_s

    @property
    def queued(self) -> int:
        """Requests that wait in the router."""
        return self._last.queued if self._last else 0

    @property
    def leased(self) -> int:
        """Requests at workers."""
        return self._last.leased if self._last else 0

    @property
    def held_bytes(self) -> int:
        """Payload bytes of both."""
        return self._last.held_bytes if self._last else 0

    @property
    def arena_bytes(self) -> int:
        """Shared memory that the tenant's clients have offered."""
        return self._last.arena_bytes if self._last else 0

    @property
    def arena_count(self) -> int:
        """In how many arenas."""
        return self._last.arena_count if self._last else 0

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return self._last.connections if self._last else 0

    @property
    def connections_refused(self) -> int:
        """Those that were sent away."""
        return self._past[REFUSED_CONNECTIONS] + (self._last.connections_refused if self._last else 0)

    @property
    def unreachable(self) -> str:
        """Why nobody can connect; empty while everybody can."""
        return self._last.unreachable if self._last else ""

    @property
    def poisons(self) -> int:
        """Inputs that are remembered as having ended workers, or as suspected of it."""
        return self._last.poisons if self._last else 0

    @property
    def barred(self) -> tuple[tuple[str, float, int], ...]:
        """Clients of which nothing is taken: name, for how many seconds more, deaths that each caused."""
        return self._last.barred if self._last else ()

    @property
    def counters(self) -> dict[str, int]:
        """Each counter by name, `abandoned` included."""
        present = {name: getattr(self._last, name) for name in COUNTERS} if self._last else {}
        return {**{name: self._past[name] + present.get(name, 0) for name in COUNTERS}, "abandoned": self.abandoned}

    @property
    def outcomes(self) -> dict[tuple[str, str], int]:
        """Answers by (model, outcome), outcome `ok` or an error code."""
        total = Counter(self._past_outcomes)
        if self._last:
            total.update({(model, outcome): count for model, outcome, count in self._last.outcomes})
        return dict(total)

    @property
    def duration_buckets(self) -> tuple[int, ...]:
        """Cumulative counts of seconds from receipt to answer."""
        return tuple(_sum(self._past_duration, self._last.duration_buckets) if self._last else self._past_duration)

    @property
    def duration_sum_s(self) -> float:
        """Sum of the same."""
        return self._past_duration_sum_s + (self._last.duration_sum_s if self._last else 0.0)

    @property
    def queue_buckets(self) -> tuple[int, ...]:
        """Cumulative counts of seconds until a worker had the request."""
        return tuple(_sum(self._past_queue, self._last.queue_buckets) if self._last else self._past_queue)

    @property
    def queue_sum_s(self) -> float:
        """Sum of the same."""
        return self._past_queue_sum_s + (self._last.queue_sum_s if self._last else 0.0)

    def recent(self, now: float) -> Recent:
        """What happened in the last minute, or since the first word about the tenant."""
        window = [sample for sample in self._samples if now - sample.at <= WINDOW_S]
        if not window:
            return Recent(None, None, 0.0)
        oldest = window[0]
        buckets = [after - before for after, before in zip(self.duration_buckets, oldest.duration, strict=True)]
        elapsed_s = max(now - oldest.at, SAMPLE_EVERY_S)
        return Recent(quantile(buckets, 0.5), quantile(buckets, 0.99), buckets[-1] / elapsed_s)


def _sum(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """The sum of two histograms; one from a process with other bounds counts as empty rather than wrong."""
    if len(left) != len(right):
        return list(left)
    return [a + b for a, b in zip(left, right, strict=True)]
