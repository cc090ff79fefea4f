"""The daemon's numbers as Prometheus metrics, made from the fleet's state and the facts at the moment of a scrape.

Tenants and their models bound the number of series; no label ever carries a request or a client.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from trtd import observe
from trtd.core.fleet import ROUTER, Fleet
from trtd.core.histogram import BOUNDS_S
from trtd.core.lifecycle import State
from trtd.supervisor.facts import Facts, TenantFacts

EVERY_NTH_BOUND = 4
"""The router's buckets are finer than Prometheus needs; being cumulative, some can be left out."""

COUNTERS = {
    observe.METRIC_ACCEPTED: ("accepted", "Requests that were accepted."),
    observe.METRIC_ANSWERED: ("answered", "Accepted requests that a worker answered."),
    observe.METRIC_FAILED: ("failed", "Accepted requests that the router answered with an error."),
    observe.METRIC_REFUSED: ("refused", "Requests that were refused at the door."),
}
GAUGES = {
    observe.METRIC_QUEUE_DEPTH: ("queued", "Requests that wait for a worker."),
    observe.METRIC_IN_FLIGHT: ("leased", "Requests at workers."),
    observe.METRIC_HELD_BYTES: ("held_bytes", "Payload bytes of waiting and running requests."),
}

DEVICE_KINDS = ("live", "peak", "hard", "refused", "pool", "driver", "unaccounted")
"""Figures of `trtd.wire.tensorrt.DeviceReport` without the end of their names."""

Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def families(fleet: Fleet, facts: Facts, version: str) -> list[Metric]:
    """All metrics as they are at this instant."""
    return list(_Collector(fleet, facts, version).collect())


def exposition(metrics: list[Metric]) -> bytes:
    """The metrics in Prometheus' text format. It takes its time: with many tenants this belongs into a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    text: bytes = generate_latest(registry)
    return text


class _Collected:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """In the manner of prometheus_client's collectors."""
        return self._metrics


class _Collector:
    def __init__(self, fleet: Fleet, facts: Facts, version: str) -> None:
        self._fleet = fleet
        self._facts = facts
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield self._build_info()
        yield from self._requests()
        yield from self._durations()
        yield from self._workers()
        yield self._router_restarts()

    def _tenants(self) -> Iterator[tuple[str, TenantFacts]]:
        yield from sorted(self._facts.tenants.items(), key=lambda item: item[0])

    def _build_info(self) -> Metric:
        metric = GaugeMetricFamily(observe.METRIC_BUILD_INFO, "Version of trtd.", labels=["version"])
        metric.add_metric([self._version], 1)
        return metric

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            observe.METRIC_REQUESTS, "Answers by model and outcome.", labels=["tenant", "model", "outcome"]
        )
        for name, seen in self._tenants():
            for (model, outcome), count in sorted(seen.totals.outcomes.items()):
                requests.add_metric([name, model, outcome], count)
        yield requests
        for metric_name, (key, text) in COUNTERS.items():
            counter = CounterMetricFamily(metric_name, text, labels=["tenant"])
            for name, seen in self._tenants():
                counter.add_metric([name], seen.totals.counters[key])
            yield counter
        for metric_name, (key, text) in GAUGES.items():
            gauge = GaugeMetricFamily(metric_name, text, labels=["tenant"])
            for name, seen in self._tenants():
                gauge.add_metric([name], getattr(seen.totals, key))
            yield gauge

    def _durations(self) -> Iterator[Metric]:
        duration = HistogramMetricFamily(
            observe.METRIC_REQUEST_DURATION, "From the receipt of a request to its answer.", labels=["tenant"]
        )
        queue = HistogramMetricFamily(
            observe.METRIC_QUEUE_DURATION, "From the receipt of a request until a worker had it.", labels=["tenant"]
        )
        recovery = HistogramMetricFamily(
            observe.METRIC_WORKER_RECOVERY, "From a worker's death to its successor's main().", labels=["tenant"]
        )
        for name, seen in self._tenants():
            totals, recoveries = seen.totals, seen.recoveries
            duration.add_metric([name], _buckets(totals.duration_buckets), totals.duration_sum_s)
            queue.add_metric([name], _buckets(totals.queue_buckets), totals.queue_sum_s)
            recovery.add_metric([name], _buckets(recoveries.buckets), recoveries.sum_s)
        yield from (duration, queue, recovery)

    def _workers(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily(
            observe.METRIC_WORKER_RESTARTS, "Restarts of workers by cause.", labels=["tenant", "reason"]
        )
        for name, seen in self._tenants():
            for reason, count in sorted(seen.restarts.items()):
                restarts.add_metric([name, reason], count)
        ready = GaugeMetricFamily(
            observe.METRIC_WORKER_READY, "Whether the worker takes work.", labels=["tenant", "replica"]
        )
        memory = GaugeMetricFamily(
            observe.METRIC_WORKER_MEMORY,
            "Host memory of the worker: resident now, highest, and its limit (0: none).",
            labels=["tenant", "replica", "kind"],
        )
        device = GaugeMetricFamily(
            observe.METRIC_WORKER_DEVICE_MEMORY,
            "Device memory of the worker: held, highest, refused, reserved, and as the driver counts it.",
            labels=["tenant", "replica", "kind"],
        )
        for tenant_name, tenant in sorted(self._fleet.tenants.items()):
            for replica, name in sorted(tenant.workers.items()):
                labels = [str(tenant_name), str(replica)]
                ready.add_metric(labels, int(self._fleet.children[name].state is State.READY))
                seen_child = self._facts.child(name)
                memory.add_metric([*labels, "rss"], seen_child.rss_bytes)
                memory.add_metric([*labels, "peak_rss"], seen_child.peak_rss_bytes)
                memory.add_metric([*labels, "limit"], seen_child.limit_bytes)
                if seen_child.device is not None:
                    for kind in DEVICE_KINDS:
                        device.add_metric([*labels, kind], getattr(seen_child.device, f"{kind}_bytes"))
        yield from (restarts, ready, memory, device)

    def _router_restarts(self) -> Metric:
        return CounterMetricFamily(
            observe.METRIC_ROUTER_RESTARTS, "Restarts of the router.", value=self._fleet.children[ROUTER].restarts
        )


def _buckets(cumulative: tuple[int, ...]) -> list[tuple[str, float]]:
    chosen = [(str(BOUNDS_S[index]), float(cumulative[index])) for index in range(0, len(BOUNDS_S), EVERY_NTH_BOUND)]
    return [*chosen, ("+Inf", float(cumulative[-1]))]
