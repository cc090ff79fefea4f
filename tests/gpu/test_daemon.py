"""The whole daemon on a GPU: right answers under load, and faults that stay with their tenant."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.gpu.conftest import check, reference
from tests.support.daemon import Daemon, OperatorError, wait_until

pytestmark = pytest.mark.gpu

MODELS = {
    "mlp": "mlp.plain",
    "mlp_two_profiles": "mlp_two_profiles.vc",
    "squeezenet_fp16": "squeezenet_fp16.plain",
    "resnet50_fp16": "resnet50_fp16.vc",
    "encoder_fp16": "encoder_fp16.plain",
    "two_io": "two_io.vc",
    "nonzero": "nonzero.vc",
}
CASES = ["one", "three", "opt"]


def gpu_tenant(assets, models, **settings):
    """A tenant of the full TensorRT with some of the plans."""
    tables = {name: {"path": str(assets / f"{MODELS[name]}.plan"), "max_batch": 64} for name in models}
    return {"runtime": "tensorrt", "models": tables, **settings}


class Callers:
    """Threads that ask until they are told to stop, and compare every answer."""

    def __init__(self, daemon, assets, tenant, models, count):
        self.answered = 0
        self.failures = []
        self.latencies = []
        self._stopping = threading.Event()
        self._daemon, self._tenant, self._models = daemon, tenant, models
        self._cases = {(model, case): reference(assets, model, case) for model in models for case in CASES}
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, seed):
        rng = random.Random(seed)
        with self._daemon.client(self._tenant, timeout=60) as client:
            while not self._stopping.is_set():
                model, case = rng.choice(list(self._cases))
                inputs, outputs = self._cases[model, case]
                began_at = time.monotonic()
                try:
                    check(model, dict(client.infer(model, inputs).outputs), outputs)
                except BaseException as error:
                    self.failures.append(f"{model} {case}: {type(error).__name__}: {error}")
                else:
                    self.answered += 1
                    self.latencies.append(time.monotonic() - began_at)


@pytest.mark.parametrize("max_graphs", [0, 32])
def test_32_clients_mix_shapes_of_all_plans(assets, max_graphs):
    """Every answer to 32 concurrent clients is right, whatever shares its batch."""
    tenant = gpu_tenant(assets, MODELS, slots=3, tensorrt={"max_graphs": max_graphs})
    with Daemon({"a": tenant}) as daemon:
        daemon.start()
        daemon.wait_ready()
        with Callers(daemon, assets, "a", list(MODELS), 32) as callers:
            wait_until(lambda: callers.answered > 2000 or callers.failures, "2000 answers")
        assert callers.failures == []
        device = wait_until(lambda: daemon.worker("a")["device"], "figures of the device")
        assert device["live_bytes"] > 50 * 1024**2
        assert device["refused_count"] == 0
        assert daemon.tenant("a")["runtime"].startswith("tensorrt 10.")
        print("device", device, "load_s", daemon.worker("a")["load_s"], "rate", daemon.tenant("a")["recent"])
        daemon.stop()


@pytest.mark.parametrize("fault", ["illegal_address", "trap", "misaligned_access", "device_assert"])
def test_a_sticky_fault_stays_with_its_tenant(assets, fault):
    """The worker is replaced, the successor answers its requests right, and the neighbour sees nothing."""
    restart = {"budget": 1000, "base_s": 0.01, "cap_s": 0.01}
    tenants = {
        "a": gpu_tenant(assets, ["mlp"], debug={"allow_faults": True}, restart=restart),
        "b": gpu_tenant(assets, ["squeezenet_fp16"]),
    }
    with Daemon(tenants) as daemon:
        daemon.start()
        daemon.wait_ready()
        with (
            Callers(daemon, assets, "a", ["mlp"], 2) as callers,
            Callers(daemon, assets, "b", ["squeezenet_fp16"], 2) as neighbours,
        ):
            for _ in range(3):
                generation = daemon.worker("a")["generation"]
                daemon.call("fault", tenant="a", fault=fault)
                wait_until(
                    lambda before=generation: (
                        daemon.worker("a")["generation"] > before and daemon.worker("a")["state"] == "ready"
                    ),
                    "the successor",
                )
                before = callers.answered
                wait_until(lambda at=before: callers.answered > at + 20, "answers of the successor")
        assert callers.failures == []
        assert neighbours.failures == []
        worker = daemon.worker("a")
        assert worker["last_fault"]["kind"] == "sticky_error"
        assert daemon.worker("b")["restarts"] == 0
        print(
            "recovery_s", worker["recovery_s"], "load_s", worker["load_s"], "worst neighbour", max(neighbours.latencies)
        )
        daemon.stop()


def test_want_of_memory_is_survived_and_a_hang_is_ended(assets):
    """Out of memory changes nothing; a kernel that fills the device is ended by progress, and requests are replayed."""
    table = gpu_tenant(assets, ["mlp"], debug={"allow_faults": True}, health={"progress_s": 1.0})
    with Daemon({"a": table}) as daemon:
        daemon.start()
        daemon.wait_ready()
        with Callers(daemon, assets, "a", ["mlp"], 2) as callers:
            daemon.call("fault", tenant="a", fault="out_of_memory")
            daemon.wait_event("fault.survived")
            assert daemon.worker("a")["restarts"] == 0
            daemon.call("fault", tenant="a", fault="endless_kernel")
            wait_until(lambda: daemon.worker("a")["restarts"] == 1, "the end of the hung worker")
            daemon.wait_ready()
            before = callers.answered
            wait_until(lambda: callers.answered > before + 20, "answers of the successor")
        assert callers.failures == []
        assert daemon.worker("a")["last_fault"]["kind"] == "progress_stalled"
        daemon.stop()


def test_faults_are_refused_where_they_are_not_allowed(assets):
    """Without debug.allow_faults the command is refused, and nothing happens."""
    with Daemon({"a": gpu_tenant(assets, ["mlp"])}) as daemon:
        daemon.start()
        daemon.wait_ready()
        with pytest.raises(OperatorError, match="allow_faults is off"):
            daemon.call("fault", tenant="a", fault="trap")
        daemon.stop()


def test_a_stripped_plan_is_refused_by_the_daemon(assets):
    """The tenant is quarantined with the reason, and the neighbour serves."""
    stripped = {"runtime": "tensorrt", "models": {"mlp": {"path": str(assets / "mlp.stripped.plan")}}}
    with Daemon({"a": stripped, "b": gpu_tenant(assets, ["mlp"])}) as daemon:
        daemon.start()
        daemon.wait_listening()
        wait_until(lambda: daemon.worker("a")["state"] == "quarantined", "the refusal")
        assert "built without its weights" in daemon.worker("a")["last_fault"]["message"]
        inputs, outputs = reference(assets, "mlp", "one")
        wait_until(lambda: daemon.tenant("b")["is_ready"], "the neighbour")
        with daemon.client("b", timeout=30) as client:
            check("mlp", dict(client.infer("mlp", inputs).outputs), outputs)
        daemon.stop()
