"""The daemon's numbers in Prometheus' text format. Their names are in `trtd.observe`.

Tenants, their models and their workers bound the number of series; no label ever carries a request or a client.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from trtd import observe
from trtd.wire.health import METRIC_BOUNDS_S, Duration, Metrics, TenantMetrics
from trtd.wire.status import ChildStatus, Status, TenantStatus

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

COUNTERS = {
    observe.METRIC_ACCEPTED: ("accepted", "Requests that were accepted."),
    observe.METRIC_ANSWERED: ("answered", "Accepted requests that a worker answered."),
    observe.METRIC_FAILED: ("failed", "Accepted requests that the router answered with an error."),
    observe.METRIC_REFUSED: ("refused", "Requests that were refused at the door."),
    observe.METRIC_REPLAYED: ("replayed", "Times a request was given to another worker, because the first one died."),
    observe.METRIC_EXPIRED: ("expired", "Accepted requests whose deadline passed."),
    observe.METRIC_CONVICTED: ("convicted", "Inputs that were convicted of ending workers."),
    observe.METRIC_EXCUSED: ("excused", "Deaths of workers that a client's input caused, charged to nobody."),
    observe.METRIC_ABANDONED: ("abandoned", "Accepted requests that were lost with a router; clients send them again."),
}
TENANT_GAUGES = {
    observe.METRIC_QUEUE_DEPTH: ("queued", "Requests that wait for a worker."),
    observe.METRIC_IN_FLIGHT: ("leased", "Requests at workers."),
    observe.METRIC_HELD_BYTES: ("held_bytes", "Payload bytes of waiting and running requests."),
    observe.METRIC_ARENA_BYTES: ("arena_bytes", "Shared memory that the tenant's clients have offered."),
    observe.METRIC_ARENAS: ("arena_count", "Arenas that this shared memory is made of."),
    observe.METRIC_ARENA_LIMIT: ("arena_limit_bytes", "Most bytes of shared memory of the tenant's clients."),
    observe.METRIC_CONNECTIONS: ("connections", "Clients that are connected."),
    observe.METRIC_QUEUE_LIMIT: ("queue_limit", "Most requests that may wait or run."),
    observe.METRIC_POISONS: ("poisons", "Inputs remembered as having ended workers, or as suspected of it."),
    observe.METRIC_TENANT_READY: ("is_ready", "Whether a request would be taken and run now."),
}
DURATIONS = {
    observe.METRIC_REQUEST_DURATION: ("duration", "From the receipt of a request to its answer."),
    observe.METRIC_QUEUE_DURATION: ("queue", "From the receipt of a request until a worker had it."),
    observe.METRIC_WORKER_RECOVERY: (
        "recovery",
        "From a worker's death to its successor's main(), if started at once.",
    ),
}
DEVICE_KINDS = ("live", "peak", "hard", "pool", "driver", "unaccounted")
"""Figures of `trtd.wire.status.DeviceStatus` without the end of their names."""
MODEL_COUNTERS = {
    observe.METRIC_GPU_ALLOCATIONS: ("allocations", "Allocations of device memory."),
    observe.METRIC_GPU_ALLOCATED: ("allocated_bytes", "Bytes of device memory that were allocated."),
    observe.METRIC_GPU_MODEL_REFUSED: ("refused_count", "Allocations of device memory that were refused."),
}


def exposition(metrics: Metrics) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    text: bytes = generate_latest(registry)
    return text


class _Collector:
    """Makes the families, in the manner of prometheus_client's collectors."""

    def __init__(self, metrics: Metrics) -> None:
        self._status = metrics["status"]
        self._tenants = metrics["tenants"]

    def collect(self) -> Iterator[Family]:
        """Every metric."""
        yield from _daemon(self._status)
        yield from _requests(self._status["tenants"], self._tenants)
        yield from _durations(self._tenants)
        yield _restarts(self._tenants)
        yield from _workers(self._status["tenants"])
        yield from _models(self._status["tenants"])


def _daemon(status: Status) -> Iterator[Family]:
    build = GaugeMetricFamily(observe.METRIC_BUILD_INFO, "Version of trtd.", labels=["version"])
    build.add_metric([status["daemon"]["version"]], 1)
    yield build
    yield GaugeMetricFamily(
        observe.METRIC_READY, "Whether every required tenant takes requests.", value=int(status["is_ready"])
    )
    yield GaugeMetricFamily(observe.METRIC_UPTIME, "Time since the daemon's start.", value=status["daemon"]["uptime_s"])
    router = status["router"]
    yield GaugeMetricFamily(
        observe.METRIC_ROUTER_READY, "Whether the router takes requests.", value=int(router["state"] == "ready")
    )
    yield CounterMetricFamily(observe.METRIC_ROUTER_RESTARTS, "Restarts of the router.", value=router["restarts"])
    yield GaugeMetricFamily(observe.METRIC_ROUTER_MEMORY, "Resident memory of the router.", value=router["rss_bytes"])


def _requests(statuses: list[TenantStatus], tenants: list[TenantMetrics]) -> Iterator[Family]:
    requests = CounterMetricFamily(
        observe.METRIC_REQUESTS, "Answers by model and outcome.", labels=["tenant", "model", "outcome"]
    )
    for tenant in tenants:
        for model, outcome, count in tenant["outcomes"]:
            requests.add_metric([tenant["name"], model, outcome], count)
    yield requests
    for metric_name, (key, text) in COUNTERS.items():
        counter = CounterMetricFamily(metric_name, text, labels=["tenant"])
        for status in statuses:
            counter.add_metric([status["name"]], status["counters"][key])  # type: ignore[literal-required]
        yield counter
    for metric_name, (key, text) in TENANT_GAUGES.items():
        gauge = GaugeMetricFamily(metric_name, text, labels=["tenant"])
        for status in statuses:
            gauge.add_metric([status["name"]], int(status[key]))  # type: ignore[literal-required]
        yield gauge
    refused = CounterMetricFamily(
        observe.METRIC_CONNECTIONS_REFUSED,
        "Connections of clients that were sent away.",
        labels=["tenant"],
    )
    for status in statuses:
        refused.add_metric([status["name"]], status["connections_refused"])
    yield refused
    not_replaced = GaugeMetricFamily(
        observe.METRIC_NOT_REPLACED, "Whether a reload or restart failed and an old version goes on.", labels=["tenant"]
    )
    for status in statuses:
        replacement = status["replacement"]
        not_replaced.add_metric([status["name"]], int(replacement is not None and replacement["state"] == "failed"))
    yield not_replaced
    barred = GaugeMetricFamily(
        observe.METRIC_BARRED, "Clients of which nothing is taken, for inputs that ended workers.", labels=["tenant"]
    )
    for status in statuses:
        barred.add_metric([status["name"]], len(status["barred"]))
    yield barred
    info = GaugeMetricFamily(
        observe.METRIC_TENANT_INFO,
        "Always 1; the labels say what the tenant runs on and who vouches for its engines.",
        labels=["tenant", "runtime", "isolation", "placement", "signature"],
    )
    for status in statuses:
        signatures = "+".join(sorted({engine["signature"] for engine in status["engines"]}))
        info.add_metric([status["name"], status["runtime"], status["isolation"], status["placement"], signatures], 1)
    yield info


def _durations(tenants: list[TenantMetrics]) -> Iterator[Family]:
    for metric_name, (key, text) in DURATIONS.items():
        histogram = HistogramMetricFamily(metric_name, text, labels=["tenant"])
        for tenant in tenants:
            duration: Duration = tenant[key]  # type: ignore[literal-required]
            bounds = [*map(str, METRIC_BOUNDS_S), "+Inf"]
            buckets = list(zip(bounds, map(float, duration["buckets"]), strict=True))
            histogram.add_metric([tenant["name"]], buckets, duration["sum_s"])
        yield histogram


def _restarts(tenants: list[TenantMetrics]) -> Family:
    restarts = CounterMetricFamily(
        observe.METRIC_WORKER_RESTARTS, "Restarts of workers by cause and blame.", labels=["tenant", "reason", "blame"]
    )
    for tenant in tenants:
        for reason, blame, count in tenant["restarts"]:
            restarts.add_metric([tenant["name"], reason, blame], count)
    return restarts


def _workers(tenants: list[TenantStatus]) -> Iterator[Family]:
    labels = ["tenant", "replica"]
    ready = GaugeMetricFamily(observe.METRIC_WORKER_READY, "Whether the worker takes work.", labels=labels)
    state = GaugeMetricFamily(
        observe.METRIC_WORKER_STATE, "Always 1; the label has the worker's state.", labels=[*labels, "state"]
    )
    memory = GaugeMetricFamily(
        observe.METRIC_WORKER_MEMORY,
        "Host memory of the worker: resident now, highest, and its limit (0: none).",
        labels=[*labels, "kind"],
    )
    device = GaugeMetricFamily(
        observe.METRIC_GPU_MEMORY,
        "Device memory: held, highest, hard watermark (0: none), reserved, of the driver's count, and beside the pool.",
        labels=[*labels, "kind"],
    )
    refused = CounterMetricFamily(
        observe.METRIC_GPU_REFUSED, "Allocations of device memory that the watermark refused.", labels=labels
    )
    for tenant in tenants:
        for worker in tenant["workers"]:
            place = [tenant["name"], worker["name"].rpartition("/")[2]]
            ready.add_metric(place, int(worker["state"] == "ready"))
            state.add_metric([*place, worker["state"]], 1)
            for kind, key in (("rss", "rss_bytes"), ("peak_rss", "peak_rss_bytes"), ("limit", "memory_limit_bytes")):
                memory.add_metric([*place, kind], worker[key])  # type: ignore[literal-required]
            _device(worker, place, device, refused)
    yield from (ready, state, memory, device, refused)


def _models(tenants: list[TenantStatus]) -> Iterator[Family]:
    labels = ["tenant", "replica", "model"]
    memory = GaugeMetricFamily(
        observe.METRIC_GPU_MODEL_MEMORY,
        "Device memory of the model: held, and its largest allocation.",
        labels=[*labels, "kind"],
    )
    counters = [CounterMetricFamily(name, text, labels=labels) for name, (_, text) in MODEL_COUNTERS.items()]
    for tenant in tenants:
        for worker in tenant["workers"]:
            for model in worker["device"]["models"] if worker["device"] else ():
                place = [tenant["name"], worker["name"].rpartition("/")[2], model["model"]]
                for kind in ("live", "largest"):
                    memory.add_metric([*place, kind], model[f"{kind}_bytes"])  # type: ignore[literal-required]
                for counter, (key, _) in zip(counters, MODEL_COUNTERS.values(), strict=True):
                    counter.add_metric(place, model[key])  # type: ignore[literal-required]
    yield memory
    yield from counters


def _device(worker: ChildStatus, place: list[str], memory: GaugeMetricFamily, refused: CounterMetricFamily) -> None:
    report = worker["device"]
    if report is None:
        return
    for kind in DEVICE_KINDS:
        size_bytes = report[f"{kind}_bytes"]  # type: ignore[literal-required]
        # What the driver does not say is no series, and above all no zero.
        if size_bytes is not None:
            memory.add_metric([*place, kind], size_bytes)
    refused.add_metric(place, report["refused_count"])
