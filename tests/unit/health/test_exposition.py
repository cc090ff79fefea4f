"""The metrics: names, labels and numbers, read back with Prometheus' own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.status import make_child, make_status, make_tenant
from tests.support.supervision import NOW
from tests.unit.supervisor.test_totals import make_stats
from trtd import observe
from trtd.core.histogram import BOUNDS_S
from trtd.health.exposition import exposition
from trtd.supervisor.facts import Facts
from trtd.supervisor.metrics import make_metrics
from trtd.wire.health import METRIC_BOUNDS_S

DEVICE = {
    "live_bytes": 1, "peak_bytes": 2, "hard_bytes": 3, "refused_count": 4, "refused_bytes": 5, "is_high": False,
    "pool_bytes": 6, "driver_bytes": 7, "unaccounted_bytes": 8, "verdict": "ok",
    "is_hard_derived": False, "allocations": 9, "allocated_bytes": 10, "largest_bytes": 11,
    "models": [
        {
            "model": "m 1", "live_bytes": 21, "allocations": 22, "allocated_bytes": 23, "largest_bytes": 24,
            "refused_count": 25,
        }
    ],
}  # fmt: skip


def make_text() -> str:
    """An exposition in which every metric has a sample."""
    facts = Facts()
    seen = facts.tenant("a", NOW)
    seen.totals.take(1, make_stats((0.01,) * 3, queued=2, leased=1, held_bytes=64), NOW + 1)
    seen.restarts["crashed", "tenant"] = 2
    seen.recoveries.observe(0.1)
    counters = {
        "accepted": 10, "answered": 4, "failed": 1, "refused": 2, "resent": 0, "replayed": 3, "expired": 1, "stale": 0,
        "abandoned": 5, "convicted": 6, "excused": 7,
    }  # fmt: skip
    barred = [{"owner": "uid:666", "for_s": 5.0, "deaths": 5}]
    worker = make_child("a/0", state="backoff", rss_bytes=4096, device=DEVICE)
    tenant = make_tenant("a", counters=counters, queued=2, leased=1, held_bytes=64, workers=[worker], barred=barred)
    return exposition(make_metrics(make_status(tenant), facts)).decode()


def test_what_the_driver_does_not_say_is_absent():
    """A figure that nobody knows is no sample, and no zero; the others are there."""
    device = {**DEVICE, "driver_bytes": None, "unaccounted_bytes": None, "verdict": "unknown"}
    tenant = make_tenant("a", workers=[make_child("a/0", device=device)])
    text = exposition(make_metrics(make_status(tenant), Facts())).decode()
    kinds = {labels["kind"] for name, labels in map(_named, samples_of(text)) if name == "trtd_gpu_memory_bytes"}
    assert kinds == {"live", "peak", "hard", "pool"}


def _named(sample: tuple[str, tuple[tuple[str, str], ...]]) -> tuple[str, dict[str, str]]:
    return sample[0], dict(sample[1])


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def sample(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_every_promised_metric_is_there():
    """Each name of `trtd.observe` has a family, each family has a name there, a help text and a type that fits."""
    families = {family.name: family for family in text_string_to_metric_families(make_text())}
    promised = {value for name, value in vars(observe).items() if name.startswith("METRIC_")}
    assert families.keys() == {name.removesuffix("_total") for name in promised}
    for name in promised:
        family = families[name.removesuffix("_total")]
        assert family.documentation
        assert (family.type == "counter") == name.endswith("_total")
        assert (family.type == "histogram") == name.endswith("_duration_seconds")
        assert family.samples, name


def test_numbers_stand_under_their_labels():
    """Figures of tenant, model, worker and device are found where an operator looks for them."""
    found = samples_of(make_text())
    assert sample(found, "trtd_requests_total", tenant="a", model="m", outcome="ok") == 3
    assert sample(found, "trtd_accepted_total", tenant="a") == 10
    assert sample(found, "trtd_replayed_total", tenant="a") == 3
    assert sample(found, "trtd_abandoned_total", tenant="a") == 5
    assert sample(found, "trtd_queue_depth", tenant="a") == 2
    assert sample(found, "trtd_queue_limit", tenant="a") == 1024
    assert sample(found, "trtd_tenant_ready", tenant="a") == 1
    assert sample(found, "trtd_tenant_replacement_failed", tenant="a") == 0
    assert sample(found, "trtd_worker_restarts_total", tenant="a", reason="crashed", blame="tenant") == 2
    assert sample(found, "trtd_inputs_convicted_total", tenant="a") == 6
    assert sample(found, "trtd_worker_deaths_excused_total", tenant="a") == 7
    assert sample(found, "trtd_clients_barred", tenant="a") == 1
    assert sample(found, "trtd_worker_ready", tenant="a", replica="0") == 0
    assert sample(found, "trtd_worker_state", tenant="a", replica="0", state="backoff") == 1
    assert sample(found, "trtd_worker_memory_bytes", tenant="a", replica="0", kind="rss") == 4096
    for kind, value in {"live": 1, "peak": 2, "hard": 3, "pool": 6, "driver": 7, "unaccounted": 8}.items():
        assert sample(found, "trtd_gpu_memory_bytes", tenant="a", replica="0", kind=kind) == value
    assert sample(found, "trtd_gpu_allocation_refused_total", tenant="a", replica="0") == 4
    place = {"tenant": "a", "replica": "0", "model": "m 1"}
    assert sample(found, "trtd_gpu_model_memory_bytes", **place, kind="live") == 21
    assert sample(found, "trtd_gpu_model_memory_bytes", **place, kind="largest") == 24
    assert sample(found, "trtd_gpu_allocations_total", **place) == 22
    assert sample(found, "trtd_gpu_allocated_bytes_total", **place) == 23
    assert sample(found, "trtd_gpu_model_allocation_refused_total", **place) == 25
    info = {"tenant": "a", "runtime": "onnxruntime 1", "isolation": "process", "placement": "cpu"}
    assert sample(found, "trtd_tenant_info", **info, signature="unsigned") == 1


def test_histograms_are_cumulative_and_complete():
    """Buckets never fall, the last one is the count, and durations lie where they belong."""
    found = samples_of(make_text())
    for name, count, seconds in (
        ("trtd_request_duration_seconds", 3, 0.01), ("trtd_queue_duration_seconds", 3, 0.01),
        ("trtd_worker_recovery_duration_seconds", 1, 0.1),
    ):  # fmt: skip
        buckets = sorted(
            (float(dict(labels)["le"]), value) for (found_name, labels), value in found.items()
            if found_name == f"{name}_bucket"
        )  # fmt: skip
        assert [value for _, value in buckets] == [count if bound >= seconds else 0 for bound, _ in buckets]
        assert buckets[-1] == (float("inf"), sample(found, f"{name}_count", tenant="a"))
        assert buckets[0][1] == 0
    assert sample(found, "trtd_worker_recovery_duration_seconds_sum", tenant="a") == 0.1


def test_each_bound_counts_what_lies_below_it():
    """Durations at every bound of the router's finer buckets are counted at exactly the bounds that they reach."""
    facts = Facts()
    facts.tenant("a", NOW).totals.take(1, make_stats(BOUNDS_S), NOW + 1)
    found = samples_of(exposition(make_metrics(make_status(make_tenant("a")), facts)).decode())
    for bound in METRIC_BOUNDS_S:
        counted = sample(found, "trtd_request_duration_seconds_bucket", tenant="a", le=str(bound))
        assert counted == sum(seconds <= bound for seconds in BOUNDS_S)
