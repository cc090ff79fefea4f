"""What the daemon does about device memory by configuration, and two versions of TensorRT side by side."""

from __future__ import annotations

import threading

import pytest

from tests.gpu.conftest import check, model_settings, reference
from tests.support.bindings import installed_bindings
from tests.support.daemon import Daemon, wait_until
from trtd.errors import OutOfMemory

pytestmark = pytest.mark.gpu

cudart = pytest.importorskip("cuda.bindings.runtime", reason="no GPU test can run: cuda-bindings are not installed")
cuda = pytest.importorskip("trtd.runtime.cuda")

LEAN = "tensorrt_lean_bindings"
STRAY_BYTES = 1 << 30


def tenant(assets, plan="mlp.plain", **settings):
    """A tenant with one plan."""
    model = plan.partition(".")[0]
    models = {model: {"path": str(assets / f"{plan}.plan"), "max_batch": 32}}
    return {"runtime": "tensorrt", "models": models, **settings}


def ask(daemon, assets, model, name="a"):
    """One right answer."""
    inputs, outputs = reference(assets, model, "three")
    with daemon.client(name, timeout=30) as client:
        check(model, dict(client.infer(model, inputs).outputs), outputs)


def test_above_the_soft_watermark_batches_take_turns(assets):
    """With three slots and memory above the watermark every answer is right, and the status says that it is high."""
    table = tenant(assets, "nonzero.vc", slots=3, tensorrt={"soft_bytes": 1})
    with Daemon({"a": table, "b": tenant(assets, "nonzero.vc", slots=3)}) as daemon:
        daemon.start()
        daemon.wait_ready()
        failures = []

        def work():
            try:
                for _ in range(50):
                    ask(daemon, assets, "nonzero")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert failures == []
        devices = {name: wait_until(lambda of=name: daemon.worker(of)["device"], "figures") for name in "ab"}
        assert (devices["a"]["is_high"], devices["b"]["is_high"]) == (True, False)
        assert daemon.wait_event("device_memory.level_changed", tenant="a")["level"] == "high"
        daemon.stop()


def test_unaccounted_memory_can_stop_admission(open_tensorrt, assets):
    """Runs are refused with the figures while memory beside the pool is above the limit, and taken again after that."""
    inputs, outputs = reference(assets, "mlp", "three")
    probe = open_tensorrt()
    wait_until(lambda: probe.device_memory().driver_bytes, "the driver's figure of this process")
    limit = probe.device_memory().unaccounted_bytes + STRAY_BYTES // 2
    runtime = open_tensorrt(unaccounted_bytes=limit, on_unaccounted="stop_admitting")
    slot = runtime.load(model_settings(assets, "mlp.plain")).open_slot()
    check("mlp", slot.run([inputs])[0], outputs)
    stray = cuda.call(cudart.cudaMalloc, STRAY_BYTES)
    wait_until(lambda: runtime.device_memory().verdict == "stop_admitting", "the verdict")
    with pytest.raises(OutOfMemory, match=r"bytes of device memory are unaccounted for, above tensorrt\.unaccounted"):
        slot.run([inputs])
    cuda.call(cudart.cudaFree, stray)
    wait_until(lambda: runtime.device_memory().verdict == "ok", "the end of the verdict")
    check("mlp", slot.run([inputs])[0], outputs)


def test_unaccounted_memory_can_cost_the_worker_its_life(assets):
    """The worker leaves with its reason, and another one comes, within the budget."""
    policy = {"unaccounted_bytes": 1024**2, "on_unaccounted": "restart"}
    with Daemon({"a": tenant(assets, tensorrt=policy, restart={"budget": 1})}) as daemon:
        daemon.start()
        wait_until(lambda: daemon.log_file.exists(), "the log")
        line = daemon.wait_event("worker.quarantined", tenant="a")
        assert line["cause"] == "unaccounted_memory"
        assert "are unaccounted for" in line["message"]
        daemon.stop()


def test_two_versions_serve_side_by_side(assets):
    """A lean runtime of another version refuses the plan with what it needs; the full one beside it serves it."""
    if LEAN not in installed_bindings():
        pytest.skip(f"{LEAN} is not installed")
    lean = {"runtime": "tensorrt_lean", "models": {"mlp": {"path": str(assets / "mlp.vc.plan")}}}
    with Daemon({"a": tenant(assets), "lean": lean}) as daemon:
        daemon.start()
        wait_until(lambda: daemon.log_file.exists(), "the log")
        line = daemon.wait_event("worker.quarantined", tenant="lean")
        assert line["cause"] == "bad_model"
        assert "it was built by TensorRT 10.6.0" in line["message"]
        assert "tensorrt_lean 11." in line["message"]
        wait_until(lambda: daemon.tenant("a")["is_ready"], "the full version")
        ask(daemon, assets, "mlp")
        assert daemon.tenant("a")["runtime"].startswith("tensorrt 10.6")
        daemon.stop()


@pytest.mark.parametrize(("devices", "is_served"), [("0", True), ("", False)])
def test_a_worker_sees_the_devices_of_the_daemons_environment(assets, devices, is_served):
    """CUDA_VISIBLE_DEVICES reaches the worker: with a device it serves, without one it says that there is none."""
    with Daemon({"a": tenant(assets)}) as daemon:
        daemon.start(CUDA_VISIBLE_DEVICES=devices, CUDA_DEVICE_ORDER="PCI_BUS_ID")
        if is_served:
            daemon.wait_ready()
            ask(daemon, assets, "mlp")
        else:
            wait_until(lambda: daemon.log_file.exists(), "the log")
            line = daemon.wait_event("worker.quarantined", tenant="a")
            assert "no usable NVIDIA driver or device" in line["message"]
        daemon.stop()
